"""Classification of the 8 x 8 images of handwritten digits that come with scikit-learn."""

import numpy as np
import torch

from nedhpc.domains.box import Box
from nedhpc.errors import UsageError
from nedhpc.problems.base import Problem, cross_entropy
from nedhpc.problems.data import split


class Digits(Problem):
    """Classify 8 x 8 images of handwritten digits by softmax cross-entropy.

    There are 1797 images (Alpaydin and Kaynak 1998). Their pixels are scaled to [-1, 1]. A share
    `held_out` of the images, chosen by `split_seed`, is not trained on and measures the accuracy.
    """

    outputs = tuple(f"z{digit}" for digit in range(10))

    def __init__(self, *, held_out: float = 0.2, split_seed: int = 0):
        try:
            from sklearn.datasets import load_digits
        except ImportError:
            message = "problem digits needs scikit-learn: pip install 'nedhpc[examples]'"
            raise UsageError(message) from None
        pixels, digits = load_digits(return_X_y=True)
        self.data = split(pixels / 8 - 1, np.eye(10)[digits], held_out, split_seed, "digits")
        self.domain = Box([-1.0] * 64, [1.0] * 64)

    @cross_entropy()
    def classify(self, j):
        return j.values

    def metrics(self, x, u, y):
        return {"accuracy": (u.argmax(1) == y.argmax(1)).to(torch.float64)}
