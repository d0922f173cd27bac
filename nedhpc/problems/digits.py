"""Classification: the 8 x 8 images of handwritten digits that come with scikit-learn (1797 images, Alpaydin and Kaynak 1998)."""

import numpy as np
import torch

from nedhpc.errors import UsageError
from nedhpc.problems.base import Box, CrossEntropy, Problem
from nedhpc.problems.regression import split


class Digits(Problem):
    """Classify 8 x 8 images of handwritten digits by softmax cross-entropy.

    Pixels are scaled to [-1, 1]. `held_out` is the share of the images kept for the accuracy, chosen by `split_seed`.
    """

    outputs = tuple(f"z{digit}" for digit in range(10))
    terms = [CrossEntropy("classify", jets=outputs)]

    def __init__(self, *, held_out: float = 0.2, split_seed: int = 0):
        try:
            from sklearn.datasets import load_digits
        except ImportError:
            raise UsageError(
                "problem digits needs scikit-learn: pip install 'nedhpc[examples]'"
            ) from None
        if not 0 <= held_out < 1:
            raise UsageError(f"problem.held_out = {held_out} is not in [0, 1)")
        pixels, digits = load_digits(return_X_y=True)
        self.data = split(pixels / 8 - 1, np.eye(10)[digits], held_out, split_seed, "digits")
        self.domain = Box([-1.0] * 64, [1.0] * 64)

    def classify(self, x, j, c, y):
        return torch.stack([getattr(j, name) for name in self.outputs], 1)

    def metrics(self, x, u, y):
        return {"accuracy": (u.argmax(1) == y.argmax(1)).double()}
