"""From a video to an explained prediction: the run's own extractors, its models, what is missing, when to be silent."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from moodal.batch import Batch, Ragged
from moodal.extraction.work import FAILED, Extracted, Stage, extract_items, lines_of, transcriber
from moodal.features.model_files import install_face_models
from moodal.media.decode import MAX_DURATION_S, Probe, probe
from moodal.models.prior import EMOTIONS, Prior
from moodal.serving.judgement import Judgement, Member, judge, together
from moodal.serving.prediction import SegmentPrediction, VideoPrediction
from moodal.serving.saved import Saved, extractor_of, own_extractors, read_saved
from moodal.serving.segments import find_segments, known_shots, read_segments
from moodal.types import MODALITIES, InputError, Segment, Task, WorkError, unknown

PRIOR = "prior"
PRIOR_EXTRACTORS = {"text": "lexicon", "audio": "audio33", "vision": "au_proxy"}
PRIOR_NOTE = "prior: nobody trained it; a guess from published knowledge, right far less often than a trained model"
MIN_CONFIDENCE = 0.5  # below it, a calibrated answer is more likely wrong than right
OF_TWO = 0.6  # of two classes one always has a half
SAME = 1e-9  # probabilities that differ by less name no class
SLICE = 32  # segments judged at a time: padded to the longest of them, and copied for every set of modalities
UNCALIBRATED = "uncalibrated: the probabilities are as the model gives them"
SHAPLEY = "relevance: each modality's share in the answer (Shapley values); this model has no relevance of its own"


@dataclass(frozen=True)
class Predictor:
    """``members``: models of one kind and data set, whose answers are averaged; ``dims``: features per step that they
    read; ``extractors``: who makes them. A modality without one (asked for as "none") is missing."""

    name: str
    members: Sequence[Member]
    dims: Mapping[str, int]
    extractors: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    @classmethod
    def from_pretrained(cls, source: str | Path, extractors: Mapping[str, str] | None = None) -> Predictor:
        """``source``: the folder of a run, or one that holds several (all seeds and folds of one model: their mean);
        a name on the model hub; or "prior", which nobody trained.

        ``extractors``: by modality, where the run's own must be found otherwise ("bert:FOLDER"), or "none". What they
        make must be what the run was trained on: their hashes are compared.
        """
        if str(source) == PRIOR:
            return cls._prior(extractors or {})
        saved = read_saved(source)
        first = saved[0]
        specs = {m: first.features[m] for m in first.model.modalities if m in first.features}
        found = own_extractors(str(source), first.model.modalities, specs, extractors or {})
        calibrated = not first.model.task.classes or all(s.temperature for s in saved)
        dims = {m: first.dims[m] for m in first.model.modalities}
        untrained = [PRIOR_NOTE] if first.kind == PRIOR else []
        notes = (*untrained, _about(saved), *([] if calibrated else [UNCALIBRATED]))
        return cls(str(source), saved, dims, found, notes)

    @classmethod
    def _prior(cls, asked: Mapping[str, str]) -> Predictor:
        for m in asked:
            if m not in MODALITIES:
                raise unknown("modality", m, MODALITIES)
        specs = {m: asked.get(m, name) for m, name in PRIOR_EXTRACTORS.items()}
        made = {m: extractor_of(m, name) for m, name in specs.items() if name != "none"}
        if not made:
            raise InputError("nothing to look at: text, audio and vision are all none")
        dims, columns = {m: x.dim for m, x in made.items()}, {m: x.columns for m, x in made.items()}
        model = Prior(dims, Task(EMOTIONS), columns=columns).eval()
        for m, why in model.ignores.items():
            raise InputError(f"--{m} {specs[m]}: the prior {why}, or none")
        return cls(PRIOR, (Member(model),), dims, made, (PRIOR_NOTE, UNCALIBRATED))

    @property
    def task(self) -> Task:
        return self.members[0].model.task

    @property
    def modalities(self) -> tuple[str, ...]:
        """Those that the models read."""
        return self.members[0].model.modalities

    def predict(
        self,
        video: str | Path,
        *,
        segments: str | Path | None = None,
        cut: str = "auto",
        min_confidence: float | None = None,
        asr: str = "",
    ) -> VideoPrediction:
        """The answer for every segment of one media file.

        segments: a table with start_s, end_s (and text), else they are found (``find_segments``); min_confidence: an
        answer whose probability is lower is withheld, by default one that is more likely wrong than right; asr: a
        Whisper model that writes down the speech where there is no transcript.
        """
        file = Path(video)
        if not file.is_file():
            raise InputError(f"{file} does not exist" if not file.exists() else f"{file} is no file; predict takes one")
        least = self._least(min_confidence)
        if asr:
            transcriber(asr)  # said now: what is wrong with a transcript costs only the words
        found = probe(file)
        lines, problem = lines_of(file, asr)
        shots = known_shots(file, found)
        if segments is None:
            items = find_segments(file, found, lines, cut, shots)
        else:
            items = read_segments(Path(segments), lines)
        extractors, lost = self._ready(found)
        extracted = extract_items(file, items, extractors, found=found, problem=problem)
        for e in extracted:
            e.stages |= lost
        ends_s = [e.item.segment.end_s for e in extracted if e.item.segment]
        duration_s = min(found.duration_s or max(ends_s, default=0.0), MAX_DURATION_S)
        name = os.fsencode(video).decode("utf-8", "replace")  # what is no UTF-8 could not be written down
        said = self.judge(name, duration_s, extracted, least)
        return replace(said, cuts_s=tuple(shot.start_s for shot in shots[1:]))

    def _least(self, asked: float | None) -> float:
        """The probability that an answer needs."""
        if asked is None:
            return OF_TWO if len(self.task.classes) == 2 else MIN_CONFIDENCE
        if not self.task.classes:
            raise InputError("--min-confidence is for classes; a score has no probability")
        if not 0 <= asked <= 1:
            raise InputError(f"--min-confidence lies between 0 and 1, got {asked}")
        return asked

    def _ready(self, found: Probe) -> tuple[dict[str, Any], dict[str, Stage]]:
        """The extractors, but for one whose model files cannot be had: asked for once, and not for every segment."""
        ready = dict(self.extractors)
        if found.video is None or "vision" not in ready or ready["vision"].name != "au_proxy":
            return ready, {}
        try:
            install_face_models()
        except (InputError, WorkError) as e:
            del ready["vision"]
            return ready, {"vision": Stage(FAILED, note=str(e))}
        return ready, {}

    def judge(self, video: str, duration_s: float, extracted: Sequence[Extracted], least: float) -> VideoPrediction:
        """The models' answer to features that are there already."""
        slices = [extracted[i : i + SLICE] for i in range(0, len(extracted), SLICE)]
        said = together([judge(self.members, self._batch(part)) for part in slices])
        notes = self.notes if said.is_own else (*self.notes, SHAPLEY)
        segments = tuple(self._segment(said, row, e, duration_s, least) for row, e in enumerate(extracted))
        return VideoPrediction(video, self.name, duration_s, self.task.classes, segments, notes)

    def _batch(self, extracted: Sequence[Extracted]) -> Batch:
        return Batch({m: _ragged([e.values.get(m) for e in extracted], dim) for m, dim in self.dims.items()})

    def _segment(self, said: Judgement, row: int, e: Extracted, duration_s: float, least: float) -> SegmentPrediction:
        missing = tuple(m for m in self.modalities if m not in e.values)
        notes = {m: stage.note for m, stage in e.stages.items() if stage.note}
        notes |= {m: "not looked at" for m in self.modalities if m not in self.extractors}
        alone = {m: self._named(said.alone[m][row]) for m in self.modalities if m not in missing}
        for m in [m for m, x in alone.items() if len(x) > 1 and max(x.values()) - min(x.values()) < SAME]:
            del alone[m]
            notes[m] = "; ".join(filter(None, [notes.get(m, ""), "it says nothing"]))
        notes |= {m: "the model does not read it" for m in MODALITIES if m not in self.modalities}
        strange = [m for m in self.modalities if m not in missing and bool(said.unfamiliar[m][row])]
        for m in strange:
            notes[m] = "; ".join(filter(None, [notes.get(m, ""), "unlike anything the model was trained on"]))
        present = [m for m in self.modalities if m not in missing]
        probabilities = self._named(said.answer[row]) if self.task.classes and present else {}
        best = max(probabilities, key=lambda c: probabilities[c]) if probabilities else None
        sure = probabilities[best] if best else None
        because = _why_silent({m: notes.get(m, "") for m in missing}, strange, present, sure, least)
        segment = e.item.segment or Segment(0.0, max(duration_s, 1e-3))
        return SegmentPrediction(
            start_s=segment.start_s,
            end_s=segment.end_s,
            text=e.item.text,
            speaker=e.speaker,
            emotion=None if because else best,
            score=float(said.answer[row, 0]) if not self.task.classes and present else None,
            probabilities=probabilities,
            relevance={m: self._relevance(said, row, m) for m in MODALITIES},
            unimodal=alone,
            missing=missing,
            notes=notes,
            abstained=bool(because),
            because=because,
        )

    def _named(self, answer: torch.Tensor) -> dict[str, float]:
        return dict(zip(self.task.classes or ("score",), answer.tolist(), strict=True))

    def _relevance(self, said: Judgement, row: int, modality: str) -> float:
        if modality not in self.modalities:
            return 0.0
        return float(said.relevance[row, self.modalities.index(modality)])


def _ragged(clips: Sequence[Any], dim: int) -> Ragged:
    """(T, D) arrays, None where missing, as one."""
    there = [torch.from_numpy(c) for c in clips if c is not None]
    lengths = torch.tensor([0 if c is None else len(c) for c in clips], dtype=torch.int64)
    return Ragged(torch.cat([torch.zeros(0, dim), *there]), lengths)


def _about(saved: Sequence[Saved]) -> str:
    several = f"the mean of {len(saved)} runs of {saved[0].kind}" if len(saved) > 1 else saved[0].kind
    return f"model: {several}, trained on {saved[0].dataset}"


def _why_silent(
    missing: Mapping[str, str], strange: Sequence[str], present: Sequence[str], best: float | None, least: float
) -> str:
    """One sentence why there is no answer, "" where there is one. ``best``: the highest probability, if any."""
    if not present:
        return "there is nothing to judge: " + "; ".join(f"{m}: {why or 'missing'}" for m, why in missing.items())
    if len(strange) == len(present):
        return (
            f"{' and '.join(strange)} {'is' if len(strange) == 1 else 'are'} unlike anything the model was trained on"
        )
    if best is not None and best < least:
        return f"the most probable emotion has only {best:.0%}, and {least:.0%} was asked for"
    return ""
