"""SDME simulated, with everything known: METHOD.md section 8's statistics and the exact posterior of every clip.

A clip has a label y. Each modality m has a label of its own, k_m, which agrees with y at the table's rate for that
class (at least one modality agrees in every clip), and its features depend on k_m alone:

    x_t = offset + scale * R (mean[k_m] + clip noise + frame noise_t),   both noises Gaussian

The mean of the frames is sufficient for k_m, so p(y | x) and the probability that m agrees are finite sums.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from moodal.data.store import FeatureSpec, new_dataset
from moodal.types import MODALITIES, SPLITS, InputError, Task, Utterance, unknown

Array = npt.NDArray[Any]
log = logging.getLogger(__name__)

# class: clips, clips whose vision agrees, clips whose audio agrees (SDME, METHOD.md section 8)
TABLE = {
    "neutral": (795, 791, 794),
    "happy": (705, 697, 153),
    "sad": (600, 548, 407),
    "angry": (1312, 1137, 1077),
    "anxious": (255, 209, 61),
}
CLASSES = tuple(TABLE)
CLIPS = sum(row[0] for row in TABLE.values())  # 3667
TEXT_AGREEMENT = {"neutral": 0.95, "happy": 0.65, "sad": 0.65, "angry": 0.7, "anxious": 0.6}  # ours: SDME has none
TO_NEUTRAL = 0.5  # share of a disagreeing modality's own labels that are neutral, where y is not

# Agreement patterns (text, audio, vision). In this order the patterns where vision agrees stand together, and around
# the circle so do those where audio agrees: systematic sampling then rounds both margins as one number each.
PATTERNS = np.array([(1, 0, 1), (0, 0, 1), (0, 1, 1), (1, 1, 1), (1, 1, 0), (0, 1, 0), (1, 0, 0)], dtype=bool)

# 20 clips of one class in a row: 14 train, 3 valid, 3 test, evenly mixed; 3,667 clips give 2567 / 550 / 550
SPLIT_CYCLE = tuple(SPLITS["tve".index(c)] for c in "ttvttettvttetttvttte")
CLIPS_PER_EPISODE = 12
EPISODE_S = 40 * 60.0
MEAN_DURATION_S, DURATION_SHAPE = 3.36, 9.0  # gamma: standard deviation 1.12 s, 92 % under 5 s
SHORTEST_S, LONGEST_S = 1.0, 10.0


@dataclass(frozen=True)
class Sense:
    """How one modality is simulated. separation: distance of an emotion's mean from neutral's, in clip noise stds."""

    dim: int
    rate_hz: float
    separation: float
    frame_noise: float  # frame noise over clip noise, as standard deviations


# With 2,567 training clips: Bayes rule .89, vision alone .74, shrinkage LDA on clip means .82, logistic regression .79.
# What lies between is the price of estimating from few clips in many noisy directions, and of ignoring disagreement.
SENSES = {
    "text": Sense(dim=96, rate_hz=3.0, separation=3.4, frame_noise=1.5),
    "audio": Sense(dim=33, rate_hz=10.0, separation=3.8, frame_noise=3.0),
    "vision": Sense(dim=35, rate_hz=5.0, separation=2.7, frame_noise=2.0),
}


@dataclass(frozen=True)
class LabelLaw:
    """The joint law of y and the own labels. C classes, in the order of ``CLASSES``.

    prior: (C,); patterns: (C, 7) probability of each row of ``PATTERNS`` given y; other: (C, C) law of an own
    label that does not agree, the diagonal is 0.
    """

    prior: Array
    patterns: Array
    other: Array

    def transition(self, modality: str) -> Array:
        """(C, C) T_m[y, k] = P(k_m = k | y): the paper's Figure 4 (c, d)."""
        agrees = self.patterns @ PATTERNS[:, MODALITIES.index(modality)]
        return np.asarray(np.diag(agrees) + (1 - agrees)[:, None] * self.other)


@dataclass(frozen=True)
class Channel:
    """From an own label to frames. mean: (C, D), whitened; mix: (D, D) rotation; spread, scale, offset: (D,)."""

    mean: Array
    spread: Array
    mix: Array
    scale: Array
    offset: Array
    clip_noise: float
    frame_noise: float

    def to_features(self, whitened: Array) -> Array:
        """(..., D) whitened values -> what is stored."""
        return np.asarray(self.offset + self.scale * ((whitened * self.spread) @ self.mix.T))

    def to_whitened(self, features: Array) -> Array:
        """The inverse of ``to_features``."""
        return np.asarray((((features - self.offset) / self.scale) @ self.mix) / self.spread)


@dataclass(frozen=True)
class Truth:
    """What is known of simulated clips. C classes; modalities in the order of ``MODALITIES``.

    posterior: (N, C) p(y | all features); relevance: (N, 3) P(k_m = y | all features); agree: (N, 3) bool, whether
    it is so; single: per modality (N, C) p(y | its features alone).
    """

    posterior: Array
    relevance: Array
    agree: Array
    single: Mapping[str, Array]


def simulate_sdme(
    target: Path,
    *,
    clips: int = CLIPS,
    seed: int = 0,
    difficulty: float = 1.0,
    text_agreement: Mapping[str, float] | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write a simulated SDME to ``target``; ``truth.parquet`` beside it holds the exact posteriors.

    ``difficulty`` multiplies all noise. Returns the summary that dataset.json keeps under "simulation".
    """
    if clips < len(SPLIT_CYCLE):
        raise InputError(f"clips must be at least {len(SPLIT_CYCLE)}, so that every split has some, got {clips}")
    if seed < 0:
        raise InputError(f"seed must be 0 or more, got {seed}")
    if not 0 < difficulty < np.inf:
        raise InputError(f"difficulty multiplies the noise, so it must be above 0, got {difficulty}")
    law = label_law(TEXT_AGREEMENT if text_agreement is None else text_agreement)
    labels_rng, layout_rng, *rest = (np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(8))
    y, agree, own = draw_labels(law, clips, labels_rng)
    duration_s = draw_durations(clips, layout_rng)
    utterances = lay_out(y, own, duration_s, layout_rng)
    ids = [u.id for u in utterances]
    likelihood = {}
    with new_dataset(target, overwrite=overwrite) as writer:
        for m, (world_rng, noise_rng) in zip(MODALITIES, zip(rest[::2], rest[1::2], strict=True), strict=True):
            channel = make_channel(SENSES[m], world_rng, difficulty=difficulty)
            lengths = np.maximum(1, np.rint(duration_s * SENSES[m].rate_hz)).astype(np.int64)
            means = np.empty((clips, SENSES[m].dim))
            frames = draw_clips(channel, own[:, MODALITIES.index(m)], lengths, noise_rng)
            writer.write_features(_spec(m, seed, difficulty), ids, _recorded(frames, means))
            likelihood[m] = log_likelihood(channel, means, lengths)
        truth = exact_truth(law, likelihood, agree)
        pq.write_table(_truth_table(ids, truth), writer.folder / "truth.parquet", compression="zstd")
        splits = np.array([u.split for u in utterances])
        summary = _summary(law, truth, y, splits, clips=clips, seed=seed, difficulty=difficulty)
        writer.finish(
            utterances,
            Task(CLASSES),
            name="SDME simulated",
            licence="CC0-1.0",
            source="moodal simulate",
            notes=(
                "Simulated: labels have SDME's class counts and agreement rates, features are Gaussian.",
                "truth.parquet holds the exact posteriors of y and of each modality's agreement; no model may read it.",
            ),
            extra={"simulation": summary},
        )
    log.info("%s: %d clips, Bayes accuracy %.3f", target, clips, summary["bayes_accuracy"]["all"])
    return summary


def systematic_counts(expected: Array, offset: float) -> Array:
    """Whole numbers with these expectations: each is the floor or the ceiling, and so is each run of neighbours.

    ``offset`` is uniform in [0, 1). The sum of ``expected`` must be whole: the sum of the counts then equals it.
    """
    edges = np.round(np.concatenate([[0.0], np.cumsum(expected)]), 9)  # 791.0000000000001 means 791
    return np.diff(np.ceil(edges - offset)).astype(np.int64)


def pattern_law(rates: Array) -> Array:
    """(7,) law of the agreement patterns, none of them empty, whose margins are ``rates`` (3,).

    Independent agreements with rates z * p_m, conditioned on at least one, have margins z p_m / (1 - prod(1 - z p_m)).
    They equal p_m for the root in (0, 1] of z = 1 - prod(1 - z p_m). 0 is a root too; the right side is concave, so
    there is another one just when its slope at 0, sum p_m, is above 1.
    """
    from scipy.optimize import brentq

    p = np.asarray(rates, dtype=float)

    def gap(z: float) -> float:
        return float(1 - np.prod(1 - z * p) - z)

    low = 0.5
    while gap(low) <= 0:
        low /= 2
    z = 1.0 if gap(1.0) == 0 else brentq(gap, low, 1.0, xtol=1e-15, rtol=1e-14)
    q = z * p
    weights = np.where(PATTERNS, q, 1 - q).prod(1)
    return np.asarray(weights / weights.sum())


def label_law(text_agreement: Mapping[str, float]) -> LabelLaw:
    """The table's rates for audio and vision, and these for text (class -> rate)."""
    for name in text_agreement:
        if name not in TABLE:
            raise unknown("class", name, CLASSES)
    if missing := [c for c in CLASSES if c not in text_agreement]:
        raise InputError(f"text_agreement has no rate for {', '.join(missing)}")
    rates = np.array([(text_agreement[c], audio / n, vision / n) for c, (n, vision, audio) in TABLE.items()])
    for name, (text, audio, vision) in zip(CLASSES, rates, strict=True):
        if not (0 <= text <= 1 and text + audio + vision > 1 + 1e-6):
            raise InputError(
                f"text_agreement of {name} must lie in [0, 1] and above {max(0.0, 1 - audio - vision):.3f}, so that "
                f"some modality can agree in every clip, got {text}"
            )
    prior = np.array([row[0] for row in TABLE.values()]) / CLIPS
    return LabelLaw(prior, np.stack([pattern_law(p) for p in rates]), _other_labels())


def _other_labels() -> Array:
    size, neutral = len(CLASSES), CLASSES.index("neutral")
    other = np.full((size, size), (1 - TO_NEUTRAL) / (size - 2))
    other[:, neutral] = TO_NEUTRAL
    other[neutral] = 1 / (size - 1)
    np.fill_diagonal(other, 0.0)
    return other


def draw_labels(law: LabelLaw, clips: int, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """y (N,), agree (N, 3) bool and own labels (N, 3), as class numbers, in random order.

    Class counts, and within each class the counts of vision and of audio agreeing, are their expectation rounded up
    or down, without bias; text's are within 2 of theirs (three margins of a table cannot all be rounded so).
    """
    class_counts = systematic_counts(clips * law.prior, rng.random())
    y = np.repeat(np.arange(len(CLASSES)), class_counts)
    counts = [systematic_counts(n * p, rng.random()) for n, p in zip(class_counts, law.patterns, strict=True)]
    agree = np.concatenate([np.repeat(PATTERNS, n, axis=0) for n in counts])
    order = rng.permutation(clips)
    y, agree = y[order], agree[order]
    thresholds = np.cumsum(law.other, axis=1)[y]  # (N, C)
    elsewhere = (rng.random((clips, len(MODALITIES), 1)) >= thresholds[:, None, :-1]).sum(2)
    return y, agree, np.where(agree, y[:, None], elsewhere)


def draw_durations(clips: int, rng: np.random.Generator) -> Array:
    """(N,) seconds: 3.36 on average, most under 5."""
    drawn = rng.gamma(DURATION_SHAPE, MEAN_DURATION_S / DURATION_SHAPE, clips)
    return np.asarray(np.clip(drawn, SHORTEST_S, LONGEST_S))


def lay_out(y: Array, own: Array, duration_s: Array, rng: np.random.Generator) -> list[Utterance]:
    """Give every clip an id, a split (70/15/15 within each class) and a place in an episode that lies in that split."""
    split = np.empty(len(y), dtype=object)
    by_class = np.argsort(y, kind="stable")  # the clips come in random order, so within a class they stay so
    split[by_class] = np.resize(np.array(SPLIT_CYCLE, dtype=object), len(y))
    episode, slot = np.empty(len(y), dtype=np.int64), np.empty(len(y), dtype=np.int64)
    first = 0
    for name in SPLITS:
        members = rng.permutation(np.flatnonzero(split == name))
        episode[members] = first + np.arange(len(members)) // CLIPS_PER_EPISODE
        slot[members] = np.arange(len(members)) % CLIPS_PER_EPISODE
        first = int(episode[members].max()) + 1
    slot_s = EPISODE_S / CLIPS_PER_EPISODE
    start_s = np.round(slot * slot_s + rng.random(len(y)) * (slot_s - LONGEST_S), 2)
    return [
        Utterance(
            id=f"clip-{i:05d}",
            video=f"episode-{episode[i]:04d}",
            start_s=float(start_s[i]),
            end_s=float(round(start_s[i] + duration_s[i], 2)),
            label=CLASSES[y[i]],
            modality_labels={m: CLASSES[k] for m, k in zip(MODALITIES, own[i], strict=True)},
            split=split[i],
            group=f"episode-{episode[i]:04d}",
        )
        for i in range(len(y))
    ]


def make_channel(sense: Sense, rng: np.random.Generator, *, difficulty: float = 1.0) -> Channel:
    """A random world for one modality; how far its classes lie apart is the same in each.

    Emotions lie in orthogonal directions around neutral. Noise is equal in all whitened directions; ``spread`` and
    ``scale`` stretch them, so that a few directions that mean little dominate the variance of what is stored.
    """
    size = len(CLASSES) - 1
    directions = np.linalg.qr(rng.standard_normal((sense.dim, size)))[0].T  # (C - 1, D)
    mean = np.zeros((len(CLASSES), sense.dim))
    mean[[i for i, c in enumerate(CLASSES) if c != "neutral"]] = sense.separation * directions
    return Channel(
        mean=mean,
        spread=rng.permutation(np.geomspace(0.4, 2.5, sense.dim)),
        mix=np.linalg.qr(rng.standard_normal((sense.dim, sense.dim)))[0],
        scale=np.exp(rng.standard_normal(sense.dim)),
        offset=3 * rng.standard_normal(sense.dim),
        clip_noise=difficulty,
        frame_noise=difficulty * sense.frame_noise,
    )


def draw_clips(channel: Channel, own: Array, lengths: Array, rng: np.random.Generator) -> Iterator[Array]:
    """The frames of each clip, float32 (T, D), given its own label."""
    for k, steps in zip(own.tolist(), lengths.tolist(), strict=True):
        clip = channel.mean[k] + channel.clip_noise * rng.standard_normal(len(channel.spread))
        frames = clip + channel.frame_noise * rng.standard_normal((steps, len(channel.spread)))
        yield channel.to_features(frames).astype(np.float32)


def _recorded(frames: Iterator[Array], means: Array) -> Iterator[Array]:
    for i, clip in enumerate(frames):
        means[i] = clip.mean(0, dtype=np.float64)
        yield clip


def log_likelihood(channel: Channel, means: Array, lengths: Array) -> Array:
    """(N, C) log p(x | k), up to what does not depend on k. means: (N, D) of the real frames; lengths: (N,).

    Given k the whitened mean is N(mean[k], (clip^2 + frame^2 / T) I), and the frames' deviations from it do not
    depend on k.
    """
    distance = ((channel.to_whitened(means)[:, None, :] - channel.mean) ** 2).sum(2)
    variance = channel.clip_noise**2 + channel.frame_noise**2 / lengths
    return np.asarray(-0.5 * distance / variance[:, None])


def exact_truth(law: LabelLaw, likelihood: Mapping[str, Array], agree: Array) -> Truth:
    """Bayes' rule. likelihood: (N, C) log p(x_m | k) per modality.

    p(y, a | x) is proportional to p(y) p(a | y) prod_m f_m, with f_m = p(x_m | k = y) where m agrees in the
    pattern a, and sum_k other[y, k] p(x_m | k) where it does not.
    """
    scaled = {m: np.exp(ll - ll.max(1, keepdims=True)) for m, ll in likelihood.items()}  # a factor per clip cancels
    same = np.stack([scaled[m] for m in MODALITIES], 1)  # (N, 3, C): p(x_m | k_m = y)
    other = np.stack([scaled[m] @ law.other.T for m in MODALITIES], 1)  # (N, 3, C): p(x_m | y, m disagrees)
    joint = np.stack([np.where(a[:, None], same, other).prod(1) for a in PATTERNS], 2)  # (N, C, 7)
    joint = joint * (law.prior[:, None] * law.patterns)
    joint /= joint.sum((1, 2), keepdims=True)
    single = {m: law.prior * (scaled[m] @ law.transition(m).T) for m in MODALITIES}
    return Truth(
        posterior=joint.sum(2),
        relevance=joint.sum(1) @ PATTERNS,
        agree=agree,
        single={m: p / p.sum(1, keepdims=True) for m, p in single.items()},
    )


def read_truth(path: Path, ids: Sequence[str]) -> Truth:
    """The truth of these clips, in this order, from the data set folder ``path``."""
    file = path / "truth.parquet"
    if not file.is_file():
        raise InputError(f"{path} has no truth.parquet: only simulated data sets know the truth")
    table = pq.read_table(file)
    where = {name: i for i, name in enumerate(table["id"].to_pylist())}
    if strangers := [name for name in ids if name not in where]:
        raise InputError(f"{file} has no clip called {strangers[0]!r}")
    rows = np.array([where[name] for name in ids], dtype=np.int64)

    def columns(names: Sequence[str]) -> Array:
        return np.stack([table[name].to_numpy()[rows] for name in names], 1)

    return Truth(
        posterior=columns([f"p_{c}" for c in CLASSES]),
        relevance=columns([f"relevance_{m}" for m in MODALITIES]),
        agree=columns([f"agree_{m}" for m in MODALITIES]),
        single={m: columns([f"single_{m}_{c}" for c in CLASSES]) for m in MODALITIES},
    )


def _truth_table(ids: Sequence[str], truth: Truth) -> pa.Table:
    columns: dict[str, Any] = {"id": list(ids)}
    columns |= {f"p_{c}": truth.posterior[:, i] for i, c in enumerate(CLASSES)}
    columns |= {f"agree_{m}": truth.agree[:, i] for i, m in enumerate(MODALITIES)}
    columns |= {f"relevance_{m}": truth.relevance[:, i] for i, m in enumerate(MODALITIES)}
    columns |= {f"single_{m}_{c}": truth.single[m][:, i] for m in MODALITIES for i, c in enumerate(CLASSES)}
    return pa.table(columns)


def _spec(modality: str, seed: int, difficulty: float) -> FeatureSpec:
    sense = SENSES[modality]
    return FeatureSpec(
        name="simulated",
        version="1",
        modality=modality,
        dim=sense.dim,
        hop_s=1 / sense.rate_hz,
        licence="CC0-1.0",
        settings={**vars(sense), "seed": seed, "difficulty": difficulty},
    )


def _summary(
    law: LabelLaw, truth: Truth, y: Array, splits: Array, *, clips: int, seed: int, difficulty: float
) -> dict[str, Any]:
    def accuracy(p: Array) -> dict[str, float]:
        right = p.argmax(1) == y
        return {"all": float(right.mean()), **{s: float(right[splits == s].mean()) for s in SPLITS}}

    single = {m: accuracy(truth.single[m]) for m in MODALITIES}
    return {
        "clips": clips,
        "seed": seed,
        "difficulty": difficulty,
        "bayes_accuracy": accuracy(truth.posterior),
        "expected_bayes_accuracy": float(truth.posterior.max(1).mean()),
        "single_bayes_accuracy": single,
        "best_single": max(single, key=lambda m: single[m]["all"]),
        "agreement_rates": {
            m: dict(zip(CLASSES, np.diag(law.transition(m)).round(9).tolist(), strict=True)) for m in MODALITIES
        },
        "agreement_counts": {
            m: {c: int(truth.agree[y == k, i].sum()) for k, c in enumerate(CLASSES)} for i, m in enumerate(MODALITIES)
        },
        "transition": {m: law.transition(m).round(9).tolist() for m in MODALITIES},
        "senses": {m: vars(s) for m, s in SENSES.items()},
    }
