"""The blocks of the parameter vector: which entries of theta belong to which tensor. Local."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod


@dataclass(frozen=True, slots=True)
class Block:
    """One named tensor of the parameter vector."""

    name: str
    shape: tuple[int, ...]
    offset: int

    @property
    def end(self) -> int:
        return self.offset + prod(self.shape)

    def of(self, theta_P):
        """This tensor as a view of theta_P (P,)."""
        return theta_P[self.offset : self.end].reshape(self.shape)


def block_layout(named_shapes: Iterable[tuple[str, tuple[int, ...]]]) -> tuple[Block, ...]:
    """The blocks of tensors that follow each other in theta, in the given order.

    Args:
        named_shapes: Pairs of name and shape.
    """
    blocks, offset = [], 0
    for name, shape in named_shapes:
        blocks.append(Block(name, tuple(shape), offset))
        offset = blocks[-1].end
    return tuple(blocks)
