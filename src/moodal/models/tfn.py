"""Tensor Fusion Network.

Zadeh et al., "Tensor Fusion Network for Multimodal Sentiment Analysis", EMNLP 2017, https://arxiv.org/abs/1707.07250:
sub-networks of section 4.1, fusion by the outer product of section 4.2, inference network of section 4.3.
Differs from the paper: the last layer is linear, the paper squashes the score into the label interval.
Differs from the field's reference package: the text dropout is active (there it is dead), audio and vision are averaged
over real steps only, and one dropout rate serves all layers. The fused tensor, 1 094 049 numbers for an utterance of
CH-SIMS, is never built: the layer behind it reads it a slice at a time (``TensorFusion``), with the same result.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from moodal.batch import Batch
from moodal.models.base import FusionModel, Output
from moodal.models.dropout import kept, kept_scale
from moodal.models.encoders import subnet
from moodal.models.fusion import append_one
from moodal.types import Task


class TFN(FusionModel):
    """Unimodal sub-networks, the outer product of their outputs, and an MLP of three layers on it."""

    is_control = True

    def __init__(
        self,
        dims: Mapping[str, int],
        task: Task,
        *,
        text_hidden: int = 128,
        audio_hidden: int = 32,
        vision_hidden: int = 128,
        text_out: int = 256,
        fusion_hidden: int = 32,
        dropout: float = 0.4,
        **inputs: Any,
    ) -> None:
        super().__init__(dims, task, **inputs)
        hidden = {"text": text_hidden, "audio": audio_hidden, "vision": vision_hidden}
        outs = {**hidden, "text": text_out}
        self.subnets = nn.ModuleDict(
            {m: subnet(self.pooling[m], self.dims[m], hidden[m], outs[m], dropout) for m in self.modalities}
        )
        self.fusion = TensorFusion([outs[m] for m in self.modalities], fusion_hidden, dropout)
        self.head = nn.Sequential(
            nn.ReLU(), nn.Linear(fusion_hidden, fusion_hidden), nn.ReLU(), nn.Linear(fusion_hidden, task.num_outputs)
        )

    def fuse(self, batch: Batch) -> Output:
        h = {m: self.subnets[m](batch.inputs[m]) for m in self.modalities}
        fused = self.fusion([h[m] for m in self.modalities])  # (B, H)
        return Output(self.head(fused), {**h, "fusion": fused})


class TensorFusion(nn.Module):
    """Dropout on the outer product of the [h_m; 1], then a linear layer: what TFN is, without its fused tensor.

    The entries of the tensor that belong to one entry z_i of the first vector are z_i r, where r (R,) is the outer
    product of the other vectors. So the layer is sum_i z_i (W_i (mask_i * r)): slices of (B, R), which stay in the
    processor's cache, instead of (B, I R); of the dropout one byte per entry is kept for the backward pass.
    weight: (I, out, R); ``unfolded`` is the matrix of the paper.
    """

    def __init__(self, dims: list[int], out: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = dropout
        first, *others = (d + 1 for d in dims)
        rest = math.prod(others)
        self.weight = nn.Parameter(torch.empty(first, out, rest))
        self.bias = nn.Parameter(torch.empty(out))
        for p in self.parameters():
            nn.init.uniform_(p, -1 / math.sqrt(first * rest), 1 / math.sqrt(first * rest))  # as nn.Linear

    def forward(self, h: list[Tensor]) -> Tensor:
        """(B, H_m) each -> (B, out)."""
        first, *others = (append_one(x) for x in h)
        rest = outer_product(others) if others else first.new_ones(len(first), 1)  # (B, R)
        if self.training and self.dropout > 0:
            product: Tensor = _DroppedProduct.apply(first, rest, self.weight, self.dropout)  # type: ignore[no-untyped-call]
            return product + self.bias
        parts = F.linear(rest, self.weight.flatten(0, 1)).view(len(first), *self.weight.shape[:2])  # (B, I, out)
        return torch.einsum("bi,bio->bo", first, parts) + self.bias

    @property
    def unfolded(self) -> Tensor:
        """(out, I R) the weight of the linear layer on ``outer_product`` of all vectors."""
        return self.weight.transpose(0, 1).flatten(1)


def outer_product(vectors: list[Tensor]) -> Tensor:
    """(B, H_1), ..., (B, H_n) -> (B, H_1 ... H_n), the index of the last vector running fastest."""
    return reduce(lambda x, y: (x[:, :, None] * y[:, None, :]).flatten(1), vectors)


class _DroppedProduct(torch.autograd.Function):
    """first (B, I), rest (B, R), weight (I, O, R), p -> sum_i first_i W_i (mask_i * rest), (B, O)."""

    @staticmethod
    def forward(ctx: Any, first: Tensor, rest: Tensor, weight: Tensor, p: float) -> Tensor:
        keep = torch.empty(len(weight), *rest.shape, dtype=torch.int8)
        parts = rest.new_empty(len(weight), len(rest), weight.shape[1])  # (I, B, O)
        mask, dropped = torch.empty_like(rest), torch.empty_like(rest)
        for bits, w, part in zip(keep, weight, parts, strict=True):
            bits.copy_(kept(rest.numel(), p).view(rest.shape))
            torch.mul(rest, mask.copy_(bits), out=dropped)
            torch.mm(dropped, w.t(), out=part)
        ctx.save_for_backward(first, rest, weight, keep, parts)
        ctx.scale = kept_scale(p)
        return torch.einsum("bi,ibo->bo", first * ctx.scale, parts)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        first, rest, weight, keep, parts = ctx.saved_tensors
        grad = grad * ctx.scale
        grad_first = torch.einsum("bo,ibo->bi", grad, parts)
        grad_rest, grad_weight = torch.zeros_like(rest), torch.empty_like(weight)
        mask, scratch = torch.empty_like(rest), torch.empty_like(rest)
        grad_parts = first.t()[:, :, None] * grad  # (I, B, O)
        for bits, w, grad_part, grad_w in zip(keep, weight, grad_parts, grad_weight, strict=True):
            mask.copy_(bits)
            torch.mm(grad_part.t(), torch.mul(rest, mask, out=scratch), out=grad_w)
            grad_rest.addcmul_(torch.mm(grad_part, w, out=scratch), mask)
        return grad_first, grad_rest, grad_weight, None
