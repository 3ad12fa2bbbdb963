"""Ways to fuse one vector per modality."""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor, nn


class LowRankFusion(nn.Module):
    """Tensor fusion with a weight of low rank: prod_m (W_m [h_m; 1]), summed over ranks (MRE eq. 1-2).

    Liu et al., ACL 2018, https://arxiv.org/abs/1806.00064. (B, M, H), or a list of (B, H_m), -> (B, C).
    ``additive_start``: the part of each factor that meets the appended 1 starts at 1, and the rank weights at 1 / R.
    """

    def __init__(
        self, modalities: int, dim: int | list[int], out: int, rank: int, *, additive_start: bool = False
    ) -> None:
        super().__init__()
        dims = [dim] * modalities if isinstance(dim, int) else dim
        self.factors = nn.ParameterList(nn.Parameter(torch.empty(rank, d + 1, out)) for d in dims)
        self.weights = nn.Parameter(torch.empty(1, rank))
        self.bias = nn.Parameter(torch.zeros(1, out))
        for p in (*self.factors, self.weights):
            nn.init.xavier_normal_(p)
        if additive_start:  # prod_m (1 + W_m h_m): to first order a sum, in which every modality gets a gradient
            with torch.no_grad():
                for factor in self.factors:
                    factor[:, -1] = 1.0
                self.weights.fill_(1 / rank)

    def forward(self, h: Tensor | list[Tensor]) -> Tensor:
        rows = list(h.unbind(1)) if isinstance(h, Tensor) else h
        z = [self._mapped(x, w) for x, w in zip(rows, self.factors, strict=True)]
        product = reduce(torch.mul, z).view(len(rows[0]), *self.factors[0].shape[::2])  # (B, R, C)
        out: Tensor = (self.weights.view(1, -1, 1) * product).sum(1) + self.bias
        return out

    @staticmethod
    def _mapped(x: Tensor, factor: Tensor) -> Tensor:
        """(B, H), (R, H + 1, C) -> (B, R C): all ranks in one product; what meets the appended 1 is its bias."""
        weight = factor.transpose(0, 1).flatten(1)  # (H + 1, R C)
        return torch.addmm(weight[-1], x, weight[:-1])


def append_one(x: Tensor) -> Tensor:
    """(B, H) -> (B, H + 1), so that the product of modalities holds each alone as well."""
    return torch.cat([x, x.new_ones(len(x), 1)], dim=1)
