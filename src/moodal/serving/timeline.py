"""A prediction as one picture, to be read at a glance: what is seen, heard and said, and what the model makes of it.

From top to bottom over one axis of time: pictures, sound, the emotion of each segment (as high as it is probable), how
much each modality counted, what each alone would say, the words. What is missing and what is unsure is hatched.
"""

from __future__ import annotations

import logging
import textwrap
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import font_manager, rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from moodal.files import write_atomic
from moodal.media import MediaError
from moodal.serving.colours import MODALITY_COLOURS, colours_of, score_colour
from moodal.serving.prediction import SegmentPrediction, VideoPrediction, percent, plain
from moodal.types import MODALITIES, InputError, Segment

log = logging.getLogger(__name__)

INK, FAINT, HATCH = "#222222", "#EEEEEE", "#A0A0A0"
DPI = 130
LEFT_IN, RIGHT_IN = 1.15, 0.25  # for the names of the rows, and for the last number of the axis
WIDTHS_IN = (12.0, 20.0)  # of the picture; more segments make it wider
SEGMENT_IN = 0.06
PICTURE_IN, PICTURE_GAP_IN = 1.1, 0.06  # height of a thumbnail, room between two
POINTER_IN = 0.09  # from a thumbnail to its moment
PICTURE_PX = 256  # longer side
LOUD = 0.003  # of full scale; below it nobody hears anything
WAVE_HZ, WAVE_BINS = 8_000, 1_000
TINT = 0.28  # of the part of a block that is not filled
WORD_LINES, MOST_NOTES = 3, 5
FEW_WORDS = 0.25  # of the segments that have words; where no more have room for them, none are shown
RASTER_FROM = 2_000  # segments; more make a drawing that no viewer opens
TICKS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400)
STYLE = {"text.parse_math": False, "hatch.linewidth": 0.7, "svg.hashsalt": "moodal"}
FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Source Han Sans SC",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "Droid Sans Fallback",
    "PingFang SC",
    "Hiragino Sans GB",
    "Microsoft YaHei",
    "SimHei",
    "Arial Unicode MS",
)

Array = npt.NDArray[Any]
Box = tuple[float, float, float, float]  # x0, y0, x1, y1


def draw_timeline(prediction: VideoPrediction, video: Path | None, out: Path) -> None:
    """Write the picture to ``out`` (.png or .svg). ``video``: where its pictures and its sound are taken from.

    What cannot be read of the video is left out and logged: the prediction is there already.
    """
    kind = out.suffix.lower().removeprefix(".")
    if kind not in ("png", "svg"):
        raise InputError(f"a timeline is a .png or an .svg, got {out.name!r}")
    with rc_context({**STYLE, "font.family": ["DejaVu Sans", *_more_fonts()]}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # a box stands for it
        figure = _Timeline(prediction, video).draw()
        metadata = {"Date": None} if kind == "svg" else None
        write_atomic(out, lambda p: figure.savefig(p, format=kind, dpi=DPI, metadata=metadata))


@dataclass(frozen=True)
class _Row:
    """A strip of the picture: its height, its name on the left, and what draws it (axes 0 to 1 upwards)."""

    height_in: float
    name: str
    draw: Callable[[Any], None]
    colour: str = INK
    gap_in: float = 0.05


class _Timeline:
    def __init__(self, prediction: VideoPrediction, video: Path | None) -> None:
        self.p = prediction
        self.video = video
        self.segments = sorted(prediction.segments, key=lambda s: (s.start_s, s.end_s))
        self.end_s = max([prediction.duration_s, *(s.end_s for s in self.segments), 0.1])
        width = min(max(WIDTHS_IN[0], SEGMENT_IN * len(self.segments)), WIDTHS_IN[1])
        self.inner_in = width - LEFT_IN - RIGHT_IN
        self.colours = colours_of(prediction.classes)
        self.shown = [(s, *span) for s, span in zip(self.segments, _side_by_side(self.segments), strict=True)]
        self.limit = max([1.0, *(abs(x) for s in self.segments for x in _scores(s))])

    def draw(self) -> Figure:
        rows = [*self._media_rows(), *self._answer_rows()]
        notes = self._notes()
        legend = self._legend()
        legend_lines = -(-len(legend) // self._legend_columns()) if legend else 0
        top_in, axis_in = 0.62, 0.34
        bottom_in = 0.14 + 0.19 * len(notes) + 0.24 * legend_lines
        height = top_in + sum(r.height_in + r.gap_in for r in rows) + axis_in + bottom_in
        figure = Figure(figsize=(LEFT_IN + self.inner_in + RIGHT_IN, height), facecolor="white")
        FigureCanvasAgg(figure)
        self._title(figure, height)
        y = height - top_in
        for row in rows:
            y -= row.height_in
            ax = self._axes(figure, y, row.height_in, height)
            ax.text(-0.09, 0.5, row.name, transform=_inches(ax, self.inner_in), ha="right", va="center", fontsize=9,
                    color=row.colour)  # fmt: skip
            row.draw(ax)
            y -= row.gap_in
        self._axis(ax)
        self._foot(figure, height, y - axis_in, legend, notes)
        return figure

    def _axes(self, figure: Figure, y_in: float, height_in: float, total_in: float) -> Any:
        width = LEFT_IN + self.inner_in + RIGHT_IN
        ax = figure.add_axes((LEFT_IN / width, y_in / total_in, self.inner_in / width, height_in / total_in))
        ax.set_xlim(0, self.end_s)
        ax.set_ylim(0, 1)
        ax.set_xticks([])
        ax.set_yticks([])
        ax.spines[:].set_visible(False)
        ax.patch.set_alpha(0)
        return ax

    def _title(self, figure: Figure, height: float) -> None:
        width = LEFT_IN + self.inner_in + RIGHT_IN
        num, unsure = len(self.segments), sum(s.abstained for s in self.segments)
        counted = f"{num} segment{'' if num == 1 else 's'}" + (f", {unsure} unsure" if unsure else "")
        about = f"{counted} · {_clock(self.end_s, 0.1 if self.end_s < 60 else 1)} · {plain(self.p.model)}"
        y = 1 - 0.28 / height
        name = _cut(plain(Path(self.p.video).name), width / 2, 13)
        figure.text(0.15 / width, y, name, fontsize=13, fontweight="bold", color=INK, va="center")
        figure.text(1 - RIGHT_IN / width, y, _cut(about, width / 2, 9.5), fontsize=9.5, color="#555555", va="center",
                    ha="right")  # fmt: skip

    def _inches(self, start_s: float, end_s: float) -> float:
        return (end_s - start_s) / self.end_s * self.inner_in

    # What is seen and heard

    def _media_rows(self) -> Iterator[_Row]:
        if self.video is None:
            return
        from moodal.media.decode import probe

        try:
            found = probe(self.video)
        except (InputError, MediaError) as e:
            log.warning("no pictures on the timeline: %s", e)
            return
        if found.video and found.video.width_px and found.video.height_px:
            size = (found.video.width_px, found.video.height_px)
            pictures = self._pictures(self.video, size if found.video.rotation_deg % 180 == 0 else size[::-1])
            if pictures:
                yield _Row(PICTURE_IN, "", lambda ax: self._draw_pictures(ax, pictures), gap_in=POINTER_IN)
            if self.p.cuts_s:
                yield _Row(0.1, "cuts", self._draw_cuts)
        peaks = _peaks(self.video, self.end_s) if found.audio else np.zeros(0)
        if len(peaks):
            height = 0.34 if found.video else 0.9
            yield _Row(height, "sound", lambda ax: self._draw_sound(ax, peaks), gap_in=0.08)
        else:
            yield _Row(0.2, "sound", lambda ax: self._nothing(ax, "no sound"), gap_in=0.08)

    def _pictures(self, video: Path, size: tuple[int, int]) -> list[tuple[float, float, Array]]:
        """Where each thumbnail has its middle, in inches; its time; the picture.

        One in the middle of each segment, moved aside where they would overlap; more in a long segment that has room;
        of many short ones those that fit.
        """
        width = PICTURE_IN * min(max(size[0] / size[1], 0.5), 2.0)
        pitch = width + PICTURE_GAP_IN
        spans = [(a, b) for _, a, b in self.shown] or [(0.0, self.end_s)]
        times = [(a + b) / 2 for a, b in spans]
        room = max(1, int(self.inner_in / pitch))
        if len(spans) > room:
            times = _nearest(times, [(k + 0.5) / room * self.end_s for k in range(room)])
        elif all(self._inches(a, b) >= pitch for a, b in spans):
            counts = [(int(self._inches(a, b) / pitch) - 1) // 2 * 2 + 1 for a, b in spans]  # odd: one in the middle
            times = [a + (k + 0.5) / n * (b - a) for (a, b), n in zip(spans, counts, strict=True) for k in range(n)]
        places = _apart([self._inches(0, t) for t in times], pitch, self.inner_in)
        try:
            frames = _frames_at(video, times)
        except (InputError, MediaError) as e:
            log.warning("no pictures on the timeline: %s", e)
            return []
        return [(x, t, frames[t]) for x, t in zip(places, times, strict=True) if t in frames]

    def _draw_pictures(self, ax: Any, pictures: Sequence[tuple[float, float, Array]]) -> None:
        for x, time_s, rgb in pictures:
            width = PICTURE_IN * min(max(rgb.shape[1] / rgb.shape[0], 0.3), 3.0)
            extent = (x - width / 2, x + width / 2, 0, PICTURE_IN)
            ax.imshow(rgb, extent=extent, aspect="auto", interpolation="antialiased")
            ax.plot([x, self._inches(0, time_s)], [0, -POINTER_IN], color="#777777", lw=0.8, clip_on=False)
        ax.set_xlim(0, self.inner_in)
        ax.set_ylim(0, PICTURE_IN)

    def _draw_cuts(self, ax: Any) -> None:
        thin = len(self.p.cuts_s) * 10 > self.inner_in * DPI
        ax.plot(self.p.cuts_s, [0.5] * len(self.p.cuts_s), "|" if thin else "v", ms=5, color=INK, mew=0.6, ls="none")

    def _draw_sound(self, ax: Any, peaks: Array) -> None:
        top = float(peaks.max())
        x = np.linspace(0, self.end_s, len(peaks))
        half = 0.5 * peaks / max(top, 10 * LOUD)
        ax.fill_between(x, 0.5 - half, 0.5 + half, color="#777777", lw=0.4)
        ax.plot([0, self.end_s], [0.5, 0.5], color="#777777", lw=0.6)
        if top < LOUD:
            self._say(ax, self.end_s / 2, 0.5, "silent", 8.5, style="italic")

    def _nothing(self, ax: Any, why: str) -> None:
        self._hatched(ax, [(0, 0, self.end_s, 1)])
        self._say(ax, self.end_s / 2, 0.5, why, 8.5, style="italic")

    # What the model says

    def _answer_rows(self) -> Iterator[_Row]:
        yield _Row(0.66, "emotion" if self.p.classes else "score", self._draw_answers)
        yield _Row(0.78, "relevance", self._draw_relevance, gap_in=0.08)
        for m in MODALITIES:
            yield _Row(0.25, f"{m} alone", lambda ax, m=m: self._draw_alone(ax, m), MODALITY_COLOURS[m], 0.03)  # type: ignore[misc]
        words = [self._words(*shown) for shown in self.shown]
        lines = max((len(w) for w in words), default=0)
        spoken = sum(bool(plain(s.text)) for s in self.segments)
        if sum(map(bool, words)) > FEW_WORDS * spoken:
            yield _Row(0.06 + 0.155 * lines, "words", lambda ax: self._draw_words(ax, words, lines), gap_in=0.02)

    def _draw_answers(self, ax: Any) -> None:
        pale: list[tuple[Box, str]] = []
        full: list[tuple[Box, str]] = []
        unsure: list[Box] = []
        for s, a, b in self.shown:
            if s.abstained or (s.emotion is None and s.score is None):
                unsure.append((a, 0, b, 1))
                continue
            colour, share = self._colour_and_share(s)
            pale.append(((a, 0, b, 1), colour))
            full.append(((a, 0, b, share), colour))
        self._boxes(ax, pale, alpha=TINT)
        self._boxes(ax, full)
        self._hatched(ax, unsure)
        for s, a, b in self.shown:
            self._name_block(ax, s, a, b)

    def _colour_and_share(self, s: SegmentPrediction) -> tuple[str, float]:
        if s.score is not None:
            return score_colour(s.score / self.limit), abs(s.score) / self.limit
        assert s.emotion is not None
        return self.colours.get(s.emotion, HATCH), float(s.probabilities.get(s.emotion, 1.0))

    def _name_block(self, ax: Any, s: SegmentPrediction, a: float, b: float) -> None:
        room, x = self._inches(a, b) - 0.06, (a + b) / 2
        if s.abstained or s.emotion is None:
            said = s.answer()
            size = next((z for z in (10.0, 8.5, 7.0) if _width_in(said, z) <= room), None)
            why = plain(s.because) if _width_in(plain(s.because), 8) <= room else ""
            if size:
                self._say(ax, x, 0.62 if why else 0.5, said, size, style="italic" if s.abstained else "normal")
                self._say(ax, x, 0.27, why, 8)
            return
        name = plain(s.emotion)
        size = next((z for z in (10.5, 9.0, 7.5) if _width_in(name, z, bold=True) <= room), None)
        if size is None and _width_in(name, 9, bold=True) <= 0.62 and room > 0.1:  # upright where it fits that way
            self._say(ax, x, 0.5, name, 8.0, rotation=90, fontweight="bold")
        elif size is not None:
            known = s.probabilities.get(s.emotion)
            self._say(ax, x, 0.5 if known is None else 0.64, name, size, fontweight="bold")
            if known is not None:
                self._say(ax, x, 0.27, percent(known), size - 1)

    def _draw_relevance(self, ax: Any) -> None:
        ax.set_ylim(-0.02, 1.02)
        bands: list[tuple[Box, str]] = []
        for s, a, b in self.shown:
            low = 0.0
            for m in reversed(MODALITIES):  # text on top, as in the rows below
                share = s.relevance.get(m, 0.0)
                bands.append(((a, low, b, low + share), MODALITY_COLOURS[m]))
                if share > 0.22 and self._inches(a, b) > 0.42:
                    ax.text((a + b) / 2, low + share / 2, percent(share), ha="center", va="center", fontsize=8,
                            color="white" if m != "audio" else INK)  # fmt: skip
                low += share
        self._boxes(ax, bands)
        self._hatched(ax, [(a, 0, b, 1) for s, a, b in self.shown if not any(s.relevance.values())])

    def _draw_alone(self, ax: Any, m: str) -> None:
        said: list[tuple[Box, str]] = []
        missing: list[Box] = []
        for s, a, b in self.shown:
            answer = s.alone(m)
            room = self._inches(a, b) - 0.06
            if answer is None:
                missing.append((a, 0, b, 1))
                note = plain(s.notes.get(m)) or ("missing" if m in s.missing else "")
                text = next((t for t in (note, "missing" if m in s.missing else "") if _width_in(t, 7.5) <= room), "")
                self._say(ax, (a + b) / 2, 0.48, text, 7.5, style="italic")
                continue
            name, value = answer
            is_score = not self.p.classes
            colour = score_colour(value / self.limit) if is_score else self.colours.get(name, HATCH)
            said.append(((a, 0, b, 1), colour))
            texts = [f"{value:+.2f}"] if is_score else [f"{plain(name)} {percent(value)}", plain(name)]
            if plain(s.notes.get(m)):
                texts.insert(0, f"{texts[0]} · {plain(s.notes[m])}")
            text = next((t for t in texts if _width_in(t, 7.5) <= room), "")
            self._say(ax, (a + b) / 2, 0.48, text, 7.5)
        self._boxes(ax, said, alpha=0.75)
        self._hatched(ax, missing)

    def _words(self, s: SegmentPrediction, a: float, b: float) -> list[str]:
        if not plain(s.text):
            return []
        text = f"{plain(s.speaker)}: {plain(s.text)}" if plain(s.speaker) else plain(s.text)
        room = self._inches(a, b) - 0.05
        return _wrapped(text, room, 8, WORD_LINES) if room > 0.45 and _can_write(text) else []

    def _draw_words(self, ax: Any, words: Sequence[Sequence[str]], lines: int) -> None:
        for (_, a, _), text in zip(self.shown, words, strict=True):
            for k, line in enumerate(text):
                ax.text(a, 1 - (k + 0.55) / lines, line, fontsize=8, color=INK, va="center", ha="left")

    # Pieces

    def _boxes(self, ax: Any, boxes: Sequence[tuple[Box, str]], alpha: float = 1.0) -> None:
        thin = len(self.segments) > 0 and self.inner_in * DPI / len(self.segments) < 8
        collection = PolyCollection(
            [_corners(box) for box, _ in boxes],
            facecolors=[colour for _, colour in boxes],
            edgecolors="none" if thin else "white",
            linewidths=0 if thin else 1.0,
            alpha=alpha,
            rasterized=len(boxes) > RASTER_FROM,
        )
        if boxes:
            ax.add_collection(collection, autolim=False)

    def _hatched(self, ax: Any, boxes: Sequence[Box]) -> None:
        """Grey stripes: nothing is said here."""
        if boxes:
            style: dict[str, Any] = {"facecolors": FAINT, "edgecolors": HATCH, "linewidths": 0.0, "hatch": "/////"}
            collection = PolyCollection([_corners(b) for b in boxes], rasterized=len(boxes) > RASTER_FROM, **style)
            ax.add_collection(collection, autolim=False)
            if self.inner_in * DPI / max(1, len(self.segments)) >= 8:
                rim = PolyCollection(
                    [_corners(b) for b in boxes], facecolors="none", edgecolors="white", linewidths=1.0
                )
                ax.add_collection(rim, autolim=False)

    def _say(self, ax: Any, x: float, y: float, text: str, size: float, **style: Any) -> None:
        """Dark letters with a white rim are read on every colour, and on stripes."""
        if text:
            rim = [withStroke(linewidth=2.2, foreground="white", alpha=0.85)]
            ax.text(x, y, text, fontsize=size, ha="center", va="center", color=INK, path_effects=rim, **style)

    def _axis(self, ax: Any) -> None:
        step = next((t for t in TICKS_S if self.end_s / t * 0.75 <= self.inner_in), TICKS_S[-1])
        ticks = np.arange(0, self.end_s + step / 1000, step)
        ax.set_xticks(ticks, [_clock(t, step) for t in ticks])
        ax.tick_params(axis="x", length=3, labelsize=8.5, colors="#555555")
        ax.spines["bottom"].set_visible(True)
        ax.spines["bottom"].set_color("#999999")

    def _legend(self) -> list[Patch]:
        """Emotions that occur, in the order of the classes; and what stripes mean."""
        seen = {s.emotion for s in self.segments} | {
            a[0] for s in self.segments for m in MODALITIES if (a := s.alone(m))
        }
        patches = [Patch(facecolor=self.colours[c], label=plain(c)) for c in self.p.classes if c in seen]
        if any(s.abstained or s.missing for s in self.segments):
            patches.append(Patch(facecolor=FAINT, edgecolor=HATCH, hatch="/////", lw=0, label="unsure, or missing"))
        return patches

    def _legend_columns(self) -> int:
        return max(4, int(self.inner_in / 1.15))

    def _notes(self) -> list[str]:
        notes = [plain(n) for n in self.p.notes]
        texts = [s.text for s in self.segments if plain(s.text)]
        if texts and not all(_can_write(plain(t)) for t in texts):
            notes.append(
                "no font on this machine has all letters of the words; they stand in the table and the captions"
            )
        width = LEFT_IN + self.inner_in - 0.2
        return [line for n in notes for line in _wrapped(n, width, 9, 2)][:MOST_NOTES]

    def _foot(self, figure: Figure, height: float, y: float, legend: Sequence[Patch], notes: Sequence[str]) -> None:
        width = LEFT_IN + self.inner_in + RIGHT_IN
        if legend:
            place = ((LEFT_IN - 0.12) / width, (y + 0.08) / height)
            sizes = {
                "handlelength": 1.1,
                "handleheight": 0.9,
                "columnspacing": 1.4,
                "labelspacing": 0.4,
                "borderpad": 0,
            }
            figure.legend(handles=legend, loc="upper left", bbox_to_anchor=place, frameon=False, fontsize=9,
                          ncols=self._legend_columns(), **sizes)  # fmt: skip
        for k, note in enumerate(reversed(notes)):
            figure.text(0.15 / width, (0.17 + 0.19 * k) / height, note, fontsize=9, color="#A03A00", va="center")


def _inches(ax: Any, width_in: float) -> Any:
    """Axes coordinates whose x counts inches from the left edge."""
    from matplotlib.transforms import Affine2D

    return Affine2D().scale(1 / width_in, 1) + ax.transAxes


def _corners(box: Box) -> list[tuple[float, float]]:
    x0, y0, x1, y1 = box
    return [(x0, y0), (x0, y1), (x1, y1), (x1, y0)]


def _nearest(times_s: Sequence[float], wanted_s: Sequence[float]) -> list[float]:
    """Of the times those nearest to the wanted ones, each once."""
    return sorted({min(times_s, key=lambda t: abs(t - wanted)) for wanted in wanted_s})


def _apart(places: Sequence[float], pitch: float, room: float) -> list[float]:
    """The same places in the same order, moved so that neighbours are ``pitch`` apart and all are inside."""
    out: list[float] = []
    for k, x in enumerate(places):
        out.append(max(x, (k + 0.5) * pitch, out[-1] + pitch if out else 0.0))
    for k in range(len(out) - 1, -1, -1):
        last = len(out) - 1 - k
        out[k] = min(out[k], room - (last + 0.5) * pitch, out[k + 1] - pitch if last else room)
    return out


def _side_by_side(segments: Sequence[SegmentPrediction]) -> list[tuple[float, float]]:
    """From when to when each is drawn: people talk at once, blocks of one row do not."""
    found = []
    for k, s in enumerate(segments):
        after = segments[k + 1].start_s if k + 1 < len(segments) else s.end_s
        found.append((s.start_s, min(s.end_s, after) if after > s.start_s else s.end_s))
    return found


def _scores(s: SegmentPrediction) -> Iterable[float]:
    alone: Mapping[str, Mapping[str, float]] = s.unimodal if s.score is not None else {}
    return [x for said in alone.values() for x in said.values()] + ([] if s.score is None else [s.score])


def _frames_at(video: Path, times_s: Sequence[float]) -> dict[float, Array]:
    """The first picture from each of these times on, which are in order; none where there is none for a second."""
    from moodal.media.decode import FrameReader

    found: dict[float, Array] = {}
    with FrameReader(video, [Segment(t, t + 1.0) for t in times_s], max_side_px=PICTURE_PX) as reader:
        for number, time_s in enumerate(times_s):
            frame = next(reader.read(number), None)
            if frame is not None:
                found[time_s] = frame.rgb
    return found


def _peaks(video: Path, end_s: float) -> Array:
    """The loudest of each of ``WAVE_BINS`` equal stretches; empty where the sound cannot be read."""
    from moodal.media.decode import stream_audio

    peaks = np.zeros(WAVE_BINS, np.float32)
    try:
        for time_s, samples in stream_audio(video, rate_hz=WAVE_HZ):
            times = time_s + np.arange(len(samples)) / WAVE_HZ
            bins = np.minimum((times / end_s * WAVE_BINS).astype(int), WAVE_BINS - 1)
            np.maximum.at(peaks, bins, np.abs(samples))
    except (InputError, MediaError) as e:
        log.warning("no sound on the timeline: %s", e)
        return np.zeros(0)
    return peaks


def _clock(time_s: float, step_s: float) -> str:
    """1:05, 1:02:03, or 0:01.5 where the steps are shorter than a second."""
    tenths = round(time_s * 10)
    whole, rest = divmod(tenths, 10)
    seconds = f"{whole % 60:02d}" + (f".{rest}" if step_s < 1 else "")
    minutes, hours = whole // 60 % 60, whole // 3600
    return f"{hours}:{minutes:02d}:{seconds}" if hours else f"{minutes}:{seconds}"


# Letters


def _width_in(text: str, size: float, *, bold: bool = False) -> float:
    """Roughly, in inches; Chinese letters are as wide as high."""
    ems = sum(
        1.0 if unicodedata.east_asian_width(c) in "WF" else 0.6 if c.isupper() or c in "mw%" else 0.54 for c in text
    )
    return ems * (1.1 if bold else 1.0) * size / 72


def _cut(text: str, room_in: float, size: float) -> str:
    """As much as has room, with an ellipsis where something is left out."""
    if _width_in(text, size) <= room_in:
        return text
    while text and _width_in(text + "…", size) > room_in:
        text = text[:-1]
    return text.rstrip() + "…" if text else ""


def _wrapped(text: str, room_in: float, size: float, most: int) -> list[str]:
    """In at most so many lines; the last is cut."""
    text = text[: most * 400]
    per_em = max(1.0, _width_in(text, size) / max(1, len(text)))
    columns = max(3, int(room_in / (_width_in(text, size) / max(1, len(text))))) if text else 3
    lines = textwrap.wrap(text, columns, break_on_hyphens=False)
    kept = lines[:most]
    if len(lines) > most:
        kept[-1] = _cut(f"{kept[-1]} {lines[most]}", room_in, size)
    return [_cut(line, room_in + 0.03 * per_em, size) for line in kept]


@cache
def _more_fonts() -> tuple[str, ...]:
    """Fonts of this machine with letters that matplotlib's own lacks."""
    there = {font.name for font in font_manager.fontManager.ttflist}
    return tuple(name for name in FONTS if name in there)


@cache
def _letters() -> frozenset[int]:
    fonts = [font_manager.get_font(font_manager.findfont(name)) for name in ("DejaVu Sans", *_more_fonts())]
    return frozenset(code for font in fonts for code in font.get_charmap())


def _can_write(text: str) -> bool:
    """Whether there are letters for it, and not boxes; one in ten (an emoji) may be one."""
    unknown = sum(ord(c) not in _letters() for c in text)
    return 10 * unknown <= len(text)
