"""Utterances as tensors: rows of real steps only, so that padding cannot be confused with data.

A ``Batch`` is a handful of utterances or a whole data set: one type, and ``select`` makes the first from the second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from moodal.types import MODALITIES


@dataclass(frozen=True)
class Ragged:
    """Sequences of different lengths, one after the other.

    values: (S, D), the real steps of all utterances; lengths: (B,) int64, ``lengths.sum() == S``.
    An utterance without this modality has length 0.
    """

    values: Tensor
    lengths: Tensor

    def __post_init__(self) -> None:
        if self.values.dim() != 2 or self.lengths.dim() != 1:
            raise ValueError(f"need values (S, D) and lengths (B,), got {self.values.shape} and {self.lengths.shape}")
        if int(self.lengths.sum()) != len(self.values):
            raise ValueError(f"lengths add up to {int(self.lengths.sum())}, but there are {len(self.values)} steps")

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def dim(self) -> int:
        return self.values.shape[1]

    @property
    def starts(self) -> Tensor:
        """(B,) the row of each utterance's first step."""
        return torch.cumsum(self.lengths, 0) - self.lengths

    @property
    def owner(self) -> Tensor:
        """(S,) the utterance each step belongs to."""
        return torch.repeat_interleave(self.lengths)

    def select(self, index: Tensor) -> Ragged:
        """The utterances at ``index`` (n,), in that order; their steps are copied when they are first looked at."""
        lengths = self.lengths[index]
        if len(self.values) == len(self) and bool((self.lengths == 1).all()):
            return _Selected(self.values, index, lengths)
        return _Selected(self.values, _ranges(self.starts[index], lengths), lengths)

    def take(self, rows: Tensor) -> Tensor:
        """(n, D) the steps at ``rows``; of a selection, copied from where they came from, once and in this order."""
        return self.values.index_select(0, rows)

    def mean(self) -> Tensor:
        """(B, D) mean over real steps; zeros where there are none."""
        if len(self.values) == len(self) and bool((self.lengths == 1).all()):
            return self.values
        total = self.values.new_zeros(len(self), self.dim).index_add_(0, self.owner, self.values)
        return total / self.lengths.clamp(min=1)[:, None].to(total.dtype)

    def std(self) -> Tensor:
        """(B, D) population standard deviation over real steps; zeros where there are none."""
        centred = self.values - self.mean()[self.owner]
        total = self.values.new_zeros(len(self), self.dim).index_add_(0, self.owner, centred * centred)
        return (total / self.lengths.clamp(min=1)[:, None].to(total.dtype)).sqrt()

    def third(self, which: int) -> Tensor:
        """(B, D) mean of the first, second or last third (0, 1, 2) of the real steps; zeros where there are none."""
        thirds = self.resampled(torch.where(self.lengths > 0, 3, 0))
        out = self.values.new_zeros(len(self), self.dim)
        out[self.lengths > 0] = thirds.values[which::3]
        return out

    def change(self) -> Tensor:
        """(B, D) standard deviation of the difference from step to step; zeros where there are fewer than two."""
        owner = self.owner
        follows = owner[1:] == owner[:-1]
        differences = (self.values[1:] - self.values[:-1])[follows]
        return Ragged(differences, (self.lengths - 1).clamp(min=0)).std()

    def last(self) -> Tensor:
        """(B, D) the last real step; zeros where there is none."""
        rows = (self.starts + self.lengths - 1).clamp(min=0)
        if not len(self.values):
            return self.values.new_zeros(len(self), self.dim)
        return self.values[rows.clamp(max=len(self.values) - 1)] * (self.lengths > 0)[:, None]

    def resampled(self, lengths: Tensor) -> Ragged:
        """Each utterance as ``lengths`` (B,) steps: step i is the mean of the real steps floor(i n / L) up to
        ceil((i + 1) n / L), so all n are used, in order, and fewer than L are repeated. A missing one stays missing."""
        n, wanted = self.lengths, torch.where(self.lengths > 0, lengths, 0)
        if torch.equal(n, wanted):
            return self
        owner = torch.repeat_interleave(wanted)  # (S',)
        step = torch.arange(len(owner)) - (torch.cumsum(wanted, 0) - wanted)[owner]
        first = step * n[owner] // wanted[owner]
        count = ((step + 1) * n[owner] + wanted[owner] - 1) // wanted[owner] - first
        parts = [
            Ragged(self.values[_ranges((self.starts[owner] + first)[some], count[some])], count[some]).mean()
            for some in torch.split(torch.arange(len(owner)), 8192)
        ]
        return Ragged(torch.cat([self.values[:0], *parts]), wanted)

    def padded(self, fill: float = 0.0) -> Tensor:
        """(B, T, D) with T the longest length, at least 1."""
        steps = max(1, int(self.lengths.max())) if len(self) else 1
        out = self.values.new_full((len(self), steps, self.dim), fill)
        out[~padding_mask(self.lengths, steps)] = self.values
        return out

    @classmethod
    def from_padded(cls, x: Tensor, lengths: Tensor) -> Ragged:
        """x: (B, T, D), whatever stands behind ``lengths`` (B,) is dropped."""
        return cls(x[~padding_mask(lengths, x.shape[1])], lengths)

    @classmethod
    def from_rows(cls, x: Tensor, present: Tensor | None = None) -> Ragged:
        """One step per utterance. x: (B, D); present: (B,) bool, absent ones get length 0."""
        present = torch.ones(len(x), dtype=torch.bool) if present is None else present
        return cls(x[present], present.long())


class _Selected(Ragged):
    """Steps chosen from others, and not yet copied: what reads them in another order copies them in that order."""

    def __init__(self, source: Tensor, rows: Tensor, lengths: Tensor) -> None:
        object.__setattr__(self, "_source", source)
        object.__setattr__(self, "_rows", rows)
        object.__setattr__(self, "lengths", lengths)

    def __getattr__(self, name: str) -> Tensor:
        if name != "values":
            raise AttributeError(name)
        values: Tensor = self._source.index_select(0, self._rows)
        object.__setattr__(self, "values", values)
        return values

    def take(self, rows: Tensor) -> Tensor:
        copied = self.__dict__.get("values")
        return self._source.index_select(0, self._rows[rows]) if copied is None else copied.index_select(0, rows)

    @property
    def dim(self) -> int:
        return self._source.shape[1]


def _ranges(starts: Tensor, counts: Tensor) -> Tensor:
    """starts[0], starts[0] + 1, ... (counts[0] of them), starts[1], ..."""
    shift = starts - (torch.cumsum(counts, 0) - counts)
    return torch.arange(int(counts.sum())) + torch.repeat_interleave(shift, counts)


def padding_mask(lengths: Tensor, steps: int) -> Tensor:
    """(B, T) bool, True where padded."""
    return torch.arange(steps) >= lengths[:, None]


@dataclass(frozen=True)
class Batch:
    """Utterances with their features and, where known, labels.

    inputs: a ``Ragged`` per modality, in the order of MODALITIES; labels: (B,) int64 classes or float32
    scores; modality_labels: (B,) int64 per modality, -1 where nobody labelled it; groups: (B,) int64, the same number
    for utterances that may not be split (one speaker, one video); rows: (B,) int64, where in the training set each
    stands, known while training; stage: "raw", "reduced", "pooled" or "prepared", how
    far a model has taken the features, so that what is done once is not done twice.
    """

    inputs: Mapping[str, Ragged]
    labels: Tensor | None = None
    modality_labels: Mapping[str, Tensor] = field(default_factory=dict)
    groups: Tensor | None = None
    ids: Sequence[str] = ()
    rows: Tensor | None = None
    stage: str = "raw"

    def __post_init__(self) -> None:
        ordered = {m: self.inputs[m] for m in MODALITIES if m in self.inputs}
        if len(ordered) != len(self.inputs) or not ordered:
            raise ValueError(f"inputs must be some of {MODALITIES}, got {sorted(self.inputs)}")
        if len({len(x) for x in ordered.values()}) > 1:
            raise ValueError(f"modalities differ in utterances: { ({m: len(x) for m, x in ordered.items()}) }")
        object.__setattr__(self, "inputs", ordered)

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    @property
    def present(self) -> dict[str, Tensor]:
        """(B,) bool per modality: it has at least one real step."""
        return {m: x.lengths > 0 for m, x in self.inputs.items()}

    @property
    def dims(self) -> dict[str, int]:
        return {m: x.dim for m, x in self.inputs.items()}

    def select(self, index: Tensor) -> Batch:
        """The utterances at ``index`` (n,) int64, in that order."""
        return Batch(
            {m: x.select(index) for m, x in self.inputs.items()},
            None if self.labels is None else self.labels[index],
            {m: y[index] for m, y in self.modality_labels.items()},
            None if self.groups is None else self.groups[index],
            [self.ids[i] for i in index.tolist()] if self.ids else (),
            None if self.rows is None else self.rows[index],
            self.stage,
        )

    def without(self, modality: str, rows: Tensor | None = None) -> Batch:
        """The same utterances with ``modality`` missing, everywhere or where ``rows`` (B,) bool is True."""
        x = self.inputs[modality]
        rows = torch.ones(len(self), dtype=torch.bool) if rows is None else rows
        kept = Ragged(x.values[~rows[x.owner]], torch.where(rows, 0, x.lengths))
        return replace(self, inputs={**self.inputs, modality: kept})

    def aligned(self) -> Batch:
        """Every modality with as many steps as the text has (``Ragged.resampled``), as word-aligned models read them.

        An utterance without text gets the steps of its shortest present modality; aligned data stays as it is.
        """
        text = self.inputs["text"].lengths if "text" in self.inputs else torch.zeros(len(self), dtype=torch.int64)
        lengths = torch.stack([x.lengths for x in self.inputs.values()])
        shortest = torch.where(lengths > 0, lengths, torch.iinfo(torch.int64).max).min(0).values
        wanted = torch.where(text > 0, text, shortest)
        return replace(self, inputs={m: x.resampled(wanted) for m, x in self.inputs.items()})
