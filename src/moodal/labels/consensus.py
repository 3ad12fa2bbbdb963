"""From votes to one label per clip and condition, or the reason why there is none."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moodal.labels.votes import SPECIAL, Array, Votes, tally
from moodal.types import InputError

SETTLED, NO_VOTES, TOO_FEW, TIE, SMALL_SHARE, COMPOUND, INVALID = (
    "",
    "no votes",
    "too few votes",
    "tie",
    "small share",
    *SPECIAL,
)
REASONS = (SETTLED, NO_VOTES, TOO_FEW, TIE, SMALL_SHARE, COMPOUND, INVALID)


@dataclass(frozen=True, slots=True)
class ConsensusSettings:
    """``min_votes``: how many a clip needs; ``min_share``: which share of them the winner needs (above 0.5 is an
    absolute majority). What was adjudicated needs neither."""

    min_votes: int = 2
    min_share: float = 0.0

    def __post_init__(self) -> None:
        if self.min_votes < 1:
            raise InputError(f"a label needs at least one vote, got min_votes {self.min_votes}")
        if not 0 <= self.min_share <= 1:
            raise InputError(f"a share of votes lies between 0 and 1, got min_share {self.min_share}")


@dataclass(frozen=True)
class Consensus:
    """One condition, N clips in the order of ``Votes.clips``.

    label: into ``Votes.labels``, -1 without; confidence: share of the main votes that went to it, NaN without; votes:
    how many main ones; intensity: into ``Votes.intensities``, -1 unknown; reason: into ``REASONS``, 0 where there is a
    label; winner: the label that won even if it is no emotion, -1 in a tie.
    """

    label: Array
    confidence: Array
    votes: Array
    intensity: Array
    adjudicated: Array
    reason: Array
    winner: Array


def winners(counts: Array) -> Array:
    """The one label with most votes of each unit; -1 where several share the first place, or nobody voted."""
    most = counts.max(1)
    alone = ((counts == most[:, None]).sum(1) == 1) & (most > 0)
    return np.where(alone, counts.argmax(1), -1)


def consensus(votes: Votes, condition: str, settings: ConsensusSettings | None = None) -> Consensus:
    """Adjudication beats majority; the label with most votes wins, and a tie has no winner.

    A clip whose winner is "compound" or "invalid" has no label. The intensity is that of most people who gave the
    winning label and said one; as many for each is the weakest of these.
    """
    s = settings or ConsensusSettings()
    main, final = votes.counts(condition), votes.counts(condition, ("adjudication",))
    total, adjudicated = main.sum(1), final.sum(1) > 0
    winner = np.where(adjudicated, winners(final), winners(main))
    own = np.take_along_axis(np.where(total[:, None] > 0, main, final), np.maximum(winner, 0)[:, None], 1)[:, 0]
    all_of_them = np.where(total > 0, total, final.sum(1))
    share = np.where(winner >= 0, own / np.maximum(all_of_them, 1), np.nan)
    special = {name: votes.labels.index(name) for name in SPECIAL if name in votes.labels}
    reason = np.select(
        [
            (total == 0) & ~adjudicated,
            (total < s.min_votes) & ~adjudicated,
            winner < 0,
            (share < s.min_share) & ~adjudicated,
            *(winner == code for code in special.values()),
        ],
        [REASONS.index(r) for r in (NO_VOTES, TOO_FEW, TIE, SMALL_SHARE, *special)],
        default=0,
    )
    label = np.where(reason == 0, winner, -1)
    return Consensus(
        label,
        np.where(label >= 0, share, np.nan),
        total,
        np.where(label >= 0, _intensity(votes, condition, winner, adjudicated), -1),
        adjudicated,
        reason,
        winner,
    )


def _intensity(votes: Votes, condition: str, winner: Array, adjudicated: Array) -> Array:
    """Of those who gave the winning label; the adjudicator's word where one said it."""
    main = _strengths(votes, condition, winner, "main")
    final = _strengths(votes, condition, winner, "adjudication")
    said = np.where((adjudicated & (final.sum(1) > 0))[:, None], final, main)
    return np.where(said.sum(1) > 0, said.argmax(1), -1)  # argmax takes the first of equals: the weakest


def _strengths(votes: Votes, condition: str, winner: Array, round_: str) -> Array:
    """(N, intensities) votes of those who gave the winning label."""
    rows = votes.where(condition, (round_,))
    rows = rows[(votes.intensity[rows] >= 0) & (votes.label[rows] == winner[votes.clip[rows]])]
    shape = (len(votes.clips), max(1, len(votes.intensities)))
    return tally(votes.clip[rows], votes.intensity[rows], votes.count[rows], shape)
