"""Emotion from published knowledge alone: nothing is trained, and no label is ever looked at.

Three experts, each with a probability per class p_m and a confidence c_m from 0 to 1, combined as a product of experts
(Hinton 2002; weighted, so a logarithmic opinion pool): log p = sum_m c_m log p_m + constant. Relevance: c_m / sum c.

vision  Which action units stand in the face, against how often each emotion shows them: Du, Tao and Martinez, PNAS
        2014, https://doi.org/10.1073/pnas.1322355111, table 1 (Ekman and Friesen's prototypes, counted in 230 people).
        A FACS unit is present from intensity 1 (A). Naive Bayes on the mean over the steps, so a clip's mean as one
        step gives the same as its frames.
audio   How much effort is in the voice, from the balance of the spectrum above and below 1 kHz, and with it arousal.
        Reference: the speech spectra of ANSI S3.5-1997 for normal, raised, loud and shouted voices.
text    How positive the words are (the columns of a lexicon), and with it valence.

Valence and arousal of each emotion: Russell and Mehrabian, J. Research in Personality 11, 1977,
https://doi.org/10.1016/0092-6566(77)90037-X, as copied in public code; neutral is the middle of both scales. The
place of calm (theirs for "relaxed") is from memory and unchecked; only a task with a class calm uses it.

What falls short. Posed prototypes are not what people do in daily life (Barrett et al. 2019). Loudness is not used at
all: without the speaker's normal voice it is the microphone's gain. The balance of the spectrum is not free of that
either: equipment colours it, and through 33 numbers per frame a voice one octave higher looks about two steps of
effort stronger. The lexicon knows English words and no irony. Probabilities are not calibrated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from moodal.batch import Batch, Ragged
from moodal.models.base import FusionModel, Output
from moodal.types import MODALITIES, InputError, Task, unknown

USUAL = 0.85  # share of people who show a unit that the table lists without one: it says more than 70 %
SOMETIMES = 0.1  # of people show a unit that does not belong to the emotion: below 20 %, or the table would list it
TALKING = {25: 0.5, 26: 0.5, 10: 0.2, 17: 0.2, 20: 0.2, 23: 0.2}  # speech moves these, whatever the emotion
PRESENT = 1.0  # intensity A of A to E: from here on a unit is coded as present

# How far a unit of ``au_proxy`` can be believed: what ``features.vision`` saw on clips; others 1.
PROXY_WEIGHT = {1: 0.8, 2: 0.8, 4: 0.8, 5: 0.6, 7: 0.6, 20: 0.6, 23: 0.6, 9: 0.3, 10: 0.3}
PROXY_COLUMN = "eye_distance_px"  # a column that only ``au_proxy`` has
STILL_FACE = 0.4  # of it remains for a face without expression: that it is neutral is one of many reasons

# Level above 1 kHz minus level below, in dB, that ``audio33`` finds in the four ANSI spectra with the pitch of men and
# of women (110 and 210 Hz), on average: -6.4 normal, -3.3 raised, 0.0 loud, +6.0 shouted. The tests make them again.
NORMAL_DB, STEP_DB = -6.4, 3.2
AROUSAL_PER_STEP = 0.3  # a loud voice, two steps up, is as aroused as anger or fear
LOW_HZ, HIGH_HZ = (100.0, 1000.0), (1000.0, 5000.0)
NUM_MFCC, NUM_BANDS, TOP_HZ = 20, 128, 11_025.0
SYLLABLES_DB = 10.0  # standard deviation of the level in speech; steady noise has far less

# Spread of an emotion around its place: 0.3 between people (the same source), with the measure's own error.
AROUSAL_SPREAD = 0.45  # the error is one step of effort: men against women
VALENCE_SPREAD = 0.4
# The most that either can be believed: where voice and face disagree, people follow the face .675 and the voice .196 of
# the time (the votes of CREMA-D, Cao et al. 2014). It also tempers the units' evidence, which naive Bayes counts as if
# no two of them moved together.
FACE_CONFIDENCE, VOICE_CONFIDENCE = 0.675, 0.196


@dataclass(frozen=True, slots=True)
class Emotion:
    """units: share of people who show an action unit; valence, arousal: -1 to 1; also: other words for it."""

    valence: float
    arousal: float
    units: Mapping[int, float] = field(default_factory=dict)
    also: tuple[str, ...] = ()


def _usual(*units: int) -> dict[int, float]:
    return dict.fromkeys(units, USUAL)


# 11 and 24, which OpenFace does not see, are left out. Calm has no face in the table: it looks neutral.
KNOWN = {
    "neutral": Emotion(0.0, 0.0, {}, ("neu", "none", "no emotion")),
    "happy": Emotion(0.81, 0.51, _usual(12, 25) | {6: 0.51}, ("happiness", "hap", "joy", "joyful")),
    "sad": Emotion(-0.63, -0.27, _usual(4, 15) | {1: 0.60, 6: 0.50, 17: 0.67}, ("sadness",)),
    "angry": Emotion(-0.51, 0.59, _usual(4, 7) | {10: 0.26, 17: 0.52, 23: 0.29}, ("anger", "ang")),
    "fearful": Emotion(
        -0.64,
        0.60,
        _usual(1, 4, 20, 25) | {2: 0.57, 5: 0.63, 26: 0.33},
        ("fear", "fea", "afraid", "anxious", "anxiety"),
    ),
    "disgusted": Emotion(-0.60, 0.35, _usual(9, 10, 17) | {4: 0.31}, ("disgust", "dis")),
    "surprised": Emotion(0.40, 0.67, _usual(1, 2, 25, 26) | {5: 0.66}, ("surprise", "sur")),
    "calm": Emotion(0.68, -0.46, {}, ("relaxed",)),
}
EMOTIONS = tuple(name for name in KNOWN if name != "calm")  # what is told apart where nobody names classes
SENTIMENTS = {"positive": ("happy",), "negative": ("sad", "angry", "fearful", "disgusted")}
UNITS = tuple(sorted({unit for emotion in KNOWN.values() for unit in emotion.units}))
MFCCS = tuple(f"mfcc_{i}" for i in range(NUM_MFCC))
COMPOUND = "compound"
NEEDED = {"text": "the column compound (lexicon)", "audio": "mfcc_0 to mfcc_19 (audio33)", "vision": "action units"}


def emotions_of(name: str) -> tuple[str, ...]:
    """The emotions a class consists of: one, or several for a sentiment. A name we do not know is an error."""
    word = name.strip().lower()
    if word in SENTIMENTS:
        return SENTIMENTS[word]
    for known, emotion in KNOWN.items():
        if word == known or word in emotion.also:
            return (known,)
    words = [*KNOWN, *SENTIMENTS, *(w for e in KNOWN.values() for w in e.also)]
    raise unknown("emotion that the prior knows", name, words)


class Prior(FusionModel):
    """Face, voice and words against what is known of emotions; what is not there, or not readable, counts nothing.

    ``use`` is "all" or the one modality to look at. ``reads`` and ``ignores`` say of each modality what is made of it.
    For scores valence is mapped to the task's interval; the voice tells arousal only, and stays out.
    """

    is_control = True
    closed_form = True
    reads_columns = True

    def __init__(
        self,
        dims: Mapping[str, int],
        task: Task,
        *,
        columns: Mapping[str, Sequence[str]] | None = None,
        use: str = "all",
    ) -> None:
        names = {m: tuple((columns or {}).get(m, ())) for m in MODALITIES if m in dims}
        if use != "all" and use not in names:
            raise unknown("modality to use here", use, ["all", *names])
        known = {m: _what_is_read(m, names[m]) for m in names}
        chosen = {m: text for m, text in known.items() if text and use in ("all", m)}
        if columns is not None and not chosen:
            wanted = "; ".join(f"{m}: {NEEDED[m]}" for m in names if use in ("all", m))
            raise InputError(f"the prior can read none of these features; it needs column names it knows ({wanted})")
        text, audio, vision = ("none" if m in chosen else "mean" for m in MODALITIES)
        super().__init__(dims, task, text_pooling=text, audio_pooling=audio, vision_pooling=vision, standardise="scale")
        self.reads: dict[str, str] = chosen
        self.ignores = {m: f"needs {NEEDED[m]}" if not known[m] else "not asked for" for m in names if m not in chosen}
        self.columns = names
        self.members = [emotions_of(name) for name in (task.classes or EMOTIONS)]

    def fit_standardisation(self, train: Batch) -> None:
        """Nothing: numbers are read as they are."""

    def fit(self, train: Batch, seed: int) -> None:
        """Nothing: there is nothing to learn."""

    def fuse(self, batch: Batch) -> Output:
        experts = {m: self._expert(m, batch.inputs[m]) for m in self.modalities}
        confidence = torch.stack([c for _, c in experts.values()], dim=1)  # (B, M)
        relevance = confidence / confidence.sum(1, keepdim=True).clamp(min=1e-12)
        weights = confidence if self.task.classes else relevance  # a mean of scores, a product of probabilities
        said = torch.stack([x for x, _ in experts.values()], dim=1)  # (B, M, C)
        logits = (weights[:, :, None] * said).sum(1)
        if not self.task.classes:
            logits = self._score(logits)
        alone = {m: x.float() if self.task.classes else self._score(x).float() for m, (x, _) in experts.items()}
        return Output(logits.float(), {}, alone, relevance.float())

    def _expert(self, modality: str, x: Ragged) -> tuple[Tensor, Tensor]:
        """What one modality says, (B, C) float64 log-probabilities or (B, 1) valence, and its confidence (B,)."""
        classes, present = len(self.task.classes), x.lengths > 0
        nothing = torch.tensor(-math.log(classes) if classes else 0.0, dtype=torch.float64)
        if modality not in self.reads or not bool(present.any()):
            return nothing.expand(len(x), classes or 1), torch.zeros(len(x), dtype=torch.float64)
        expert = {"text": self._words, "audio": self._voice, "vision": self._face}[modality]
        said, confidence = expert(Ragged(x.values.double(), x.lengths))
        return torch.where(present[:, None], said, nothing), torch.where(present, confidence, 0.0)

    def _face(self, x: Ragged) -> tuple[Tensor, Tensor]:
        names = self.columns["vision"]
        sure = (
            x.values[:, names.index("confidence")].clamp(0, 1) if "confidence" in names else torch.ones(len(x.values))
        )
        active, quality = activity(x, names, sure.double())
        evidence = face_evidence(active, unit_weights(names))  # (B, emotions)
        moved = torch.tensor([unit not in TALKING for unit in UNITS])
        strength = active[:, moved].max(1).values
        confidence = FACE_CONFIDENCE * quality * (STILL_FACE + (1 - STILL_FACE) * strength)
        if self.task.classes:
            return self._classes(evidence), confidence
        rows = [list(KNOWN).index(name) for name in EMOTIONS]
        return (evidence[:, rows].softmax(1) @ _of_emotions("valence")[rows])[:, None], confidence

    def _voice(self, x: Ragged) -> tuple[Tensor, Tensor]:
        balance, spread = spectral_balance(x, self.columns["audio"])
        confidence = VOICE_CONFIDENCE * (spread / SYLLABLES_DB).clamp(max=1.0)
        if not self.task.classes:
            return torch.zeros(len(x), 1, dtype=torch.float64), torch.zeros_like(confidence)
        arousal = (AROUSAL_PER_STEP * (balance - NORMAL_DB) / STEP_DB).clamp(-1, 1)
        return self._classes(_near(arousal, _of_emotions("arousal"), AROUSAL_SPREAD)), confidence

    def _words(self, x: Ragged) -> tuple[Tensor, Tensor]:
        valence = x.mean()[:, self.columns["text"].index(COMPOUND)].clamp(-1, 1)
        if not self.task.classes:
            return valence[:, None], valence.abs()
        return self._classes(_near(valence, _of_emotions("valence"), VALENCE_SPREAD)), valence.abs()

    def _classes(self, evidence: Tensor) -> Tensor:
        """(B, emotions) log-likelihoods -> (B, C) log-probabilities; a class of several emotions is their mixture."""
        place = list(KNOWN).index
        parts = [evidence[:, [place(e) for e in names]].logsumexp(1) - math.log(len(names)) for names in self.members]
        return torch.stack(parts, dim=1).log_softmax(1)

    def _score(self, valence: Tensor) -> Tensor:
        """-1 to 1 -> low to high."""
        return self.task.low + (valence + 1) / 2 * (self.task.high - self.task.low)


def _what_is_read(modality: str, names: Sequence[str]) -> str:
    """What the prior makes of columns with these names, in words; "" where it knows none of them."""
    if modality == "text":
        return "how positive the words are" if COMPOUND in names else ""
    if modality == "audio":
        return "how much effort is in the voice" if set(MFCCS) <= set(names) else ""
    seen = all(_named(unit, names) for unit in UNITS)
    if not seen:
        return ""
    return "action units by proxy, the doubtful ones less" if PROXY_COLUMN in names else "action units"


def _named(unit: int, names: Sequence[str]) -> list[str]:
    """The columns of a unit that are there: its intensity, its presence."""
    return [f"AU{unit:02d}_{kind}" for kind in "rc" if f"AU{unit:02d}_{kind}" in names]


def activity(x: Ragged, names: Sequence[str], sure: Tensor) -> tuple[Tensor, Tensor]:
    """How far each of ``UNITS`` is there, (B, units) from 0 to 1, and the mean confidence (B,).

    The mean of presence and of intensity over ``PRESENT``, each a mean over the steps weighted by ``sure`` (S,).
    """
    quality = Ragged(sure[:, None], x.lengths).mean()[:, 0]
    weighted = Ragged(x.values * sure[:, None], x.lengths).mean() / quality.clamp(min=1e-12)[:, None]
    columns = []
    for unit in UNITS:
        kinds = [
            (weighted[:, names.index(name)] / (PRESENT if name.endswith("r") else 1.0)).clamp(0, 1)
            for name in _named(unit, names)
        ]
        columns.append(torch.stack(kinds).mean(0))
    return torch.stack(columns, dim=1), quality


def unit_weights(names: Sequence[str]) -> Tensor:
    """(units,) how far each can be believed, by who made these columns."""
    table = PROXY_WEIGHT if PROXY_COLUMN in names else {}
    return torch.tensor([table.get(unit, 1.0) for unit in UNITS], dtype=torch.float64)


def face_evidence(active: Tensor, weights: Tensor) -> Tensor:
    """(B, units) from 0 to 1 -> (B, emotions) log-likelihoods against a neutral face, whose own is 0.

    sum_j w_j (a_j log(p_j / b_j) + (1 - a_j) log((1 - p_j) / (1 - b_j))), b_j: how often the unit is there anyway.
    """
    anyway = torch.tensor([TALKING.get(unit, SOMETIMES) for unit in UNITS], dtype=torch.float64)
    shown = torch.tensor([[e.units.get(unit, 0.0) for unit in UNITS] for e in KNOWN.values()], dtype=torch.float64)
    shown = torch.maximum(shown, anyway)  # (emotions, units)
    present, absent = (shown / anyway).log(), ((1 - shown) / (1 - anyway)).log()
    return (active * weights) @ present.t() + ((1 - active) * weights) @ absent.t()


def spectral_balance(x: Ragged, names: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Level of ``HIGH_HZ`` minus level of ``LOW_HZ`` in dB (B,), and how far the latter varies from step to step (B,).

    The cepstrum gives back a smoothed spectrum; a band's level is its mean in dB. Steps are added as power, so loud
    ones decide and pauses do not count.
    """
    cepstrum = x.values[:, [names.index(name) for name in MFCCS]]
    low, high = (cepstrum @ _band(*band) for band in (LOW_HZ, HIGH_HZ))
    spread = Ragged(low[:, None], x.lengths).std()[:, 0]
    return _power_level(high, x.lengths) - _power_level(low, x.lengths), spread


def _power_level(level: Tensor, lengths: Tensor) -> Tensor:
    """dB of the mean power of each utterance's steps."""
    power = Ragged(10 ** (level.clamp(-300, 300)[:, None] / 10), lengths).mean()[:, 0]
    return 10 * power.clamp(min=1e-30).log10()


def _band(low_hz: float, high_hz: float) -> Tensor:
    """(20,) weights that turn a cepstrum into the mean level between two frequencies: the inverse cosine transform.

    128 bands, evenly spaced on HTK's mel scale; Slaney's scale moves the result by a decibel or so.
    """
    top = 2595 * math.log10(1 + TOP_HZ / 700)
    mel = torch.arange(1, NUM_BANDS + 1, dtype=torch.float64) * top / (NUM_BANDS + 1)
    hz = 700 * (10 ** (mel / 2595) - 1)
    inside = (hz >= low_hz) & (hz < high_hz)
    angle = math.pi * (torch.arange(NUM_BANDS, dtype=torch.float64)[inside, None] + 0.5) * torch.arange(NUM_MFCC)
    basis = (angle / NUM_BANDS).cos() * math.sqrt(2 / NUM_BANDS)
    basis[:, 0] = math.sqrt(1 / NUM_BANDS)
    return basis.mean(0)


def _of_emotions(what: str) -> Tensor:
    """(emotions,) valence or arousal of each, in the order of ``KNOWN``."""
    return torch.tensor([getattr(e, what) for e in KNOWN.values()], dtype=torch.float64)


def _near(measured: Tensor, places: Tensor, spread: float) -> Tensor:
    """(B,), (emotions,) -> (B, emotions) log of a Gaussian, up to a constant."""
    return -0.5 * ((measured[:, None] - places) / spread) ** 2
