"""Dropout with cheap random bits.

Srivastava et al., JMLR 2014. Why not ``torch.nn.Dropout``: on a CPU it draws one double per element, which costs more
than the layer behind it. Here one 64-bit draw serves four elements; ``p`` is kept to 1 / 65536 (`make bench`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

LEVELS = 1 << 16


def dropout(x: Tensor, p: float, training: bool = True) -> Tensor:
    """``x`` with each element zero with probability ``p``, the others divided by 1 - p; ``x`` itself in evaluation."""
    return x * keep_mask(x, p) if training and p > 0 else x


def keep_mask(x: Tensor, p: float) -> Tensor:
    """Of the shape and type of ``x``: 0 with probability ``p``, else 1 / (1 - p); from torch's own generator."""
    return kept(x.numel(), p).view(x.shape).to(x.dtype).mul_(kept_scale(p))


def kept(count: int, p: float) -> Tensor:
    """(count,) int16, 0 with probability ``p``, else 1."""
    draws = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(1 << 63), None)
    # compared in place: a comparison into bools, and those into floats, takes several times as long
    return draws.view(torch.int16)[:count].ge_(_dropped(p) - LEVELS // 2)


def kept_scale(p: float) -> float:
    """1 / (1 - p) for the ``p`` that ``kept`` really has."""
    return LEVELS / (LEVELS - _dropped(p))


def _dropped(p: float) -> int:
    """How many of the ``LEVELS`` a draw can have are dropped: never all, or what is kept would have no scale."""
    return min(round(p * LEVELS), LEVELS - 1)


class Dropout(nn.Module):
    """``dropout`` as a layer."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.p, self.training)

    def extra_repr(self) -> str:
        return f"p={self.p}"
