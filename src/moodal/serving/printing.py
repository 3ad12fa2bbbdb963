"""A prediction in the terminal: one row per segment, and below the table what was missing and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from moodal.serving.colours import MODALITY_COLOURS, colours_of
from moodal.serving.prediction import SegmentPrediction, VideoPrediction, percent, plain
from moodal.types import MODALITIES

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

CELLS = 10  # of a relevance bar
PIPE_WIDTH = 140  # columns, where nobody says how wide the terminal is
NARROW_WIDTH = 110
MOST_NOTES = 12


def print_prediction(prediction: VideoPrediction, console: Console | None = None) -> None:
    """To ``console``, by default stdout."""
    from rich.console import Console
    from rich.text import Text

    console = console or Console()
    if not console.is_terminal:
        console = Console(file=console.file, width=PIPE_WIDTH)
    console.print(Text(plain(f"{prediction.video} · {prediction.model}"), style="bold"))
    console.print(as_table(prediction, narrow=console.width < NARROW_WIDTH))
    for note in remarks(prediction):
        console.print(Text(f"· {note}", style="dim"))


def as_table(prediction: VideoPrediction, *, narrow: bool = False) -> Table:
    """Time, answer, relevance, what each modality alone would say, and the words as far as there is room.

    ``narrow``: without the times of ends, and without how sure each modality alone would be.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=True, show_lines=False)
    colours = colours_of(prediction.classes)
    table.add_column("time", no_wrap=True, justify="right")
    table.add_column("emotion" if prediction.classes else "score", no_wrap=True)
    table.add_column("relevance", no_wrap=True, min_width=CELLS)
    for m in MODALITIES:
        table.add_column(Text(m if narrow else f"{m} alone", style=MODALITY_COLOURS[m]), no_wrap=True)
    table.add_column("words", no_wrap=True, overflow="ellipsis", ratio=1)
    for s in prediction.segments:
        alone = (_alone(s, m, narrow) for m in MODALITIES)
        words = Text(f"{plain(s.speaker)}: " if plain(s.speaker) else "", style="dim").append(plain(s.text), "default")
        time = clock(s.start_s) if narrow else f"{clock(s.start_s)}–{clock(s.end_s)}"
        table.add_row(time, _answer(s, colours), relevance_bar(s), *alone, words)
    return table


def _answer(s: SegmentPrediction, colours: Mapping[str, str]) -> Text:
    """A patch in the emotion's colour; the words keep the terminal's, which fits its background."""
    from rich.text import Text

    if s.abstained:
        return Text(f"  {s.answer()}", style="dim italic")
    return Text("■ ", colours.get(s.emotion or "", "default")).append(plain(s.answer()), "bold default")


def clock(time_s: float) -> str:
    """1:02:03.4, without hours where there are none."""
    tenths = round(time_s * 10)
    seconds, minutes, hours = tenths / 10 % 60, tenths // 600 % 60, tenths // 36_000
    return f"{hours}:{minutes:02d}:{seconds:04.1f}" if hours else f"{minutes}:{seconds:04.1f}"


def relevance_bar(s: SegmentPrediction) -> Text:
    """Ten letters in all, each modality's by its share: readable without colours too."""
    from rich.text import Text

    bar = Text()
    for m, count in shares(s).items():
        bar.append(m[0] * count, f"black on {MODALITY_COLOURS[m]}")
    return bar if bar.plain else Text("nothing", style="dim")


def shares(s: SegmentPrediction, cells: int = CELLS) -> dict[str, int]:
    """Relevance in whole cells that fill the bar, by largest remainders; no cells where nothing is relevant."""
    total = sum(s.relevance.get(m, 0.0) for m in MODALITIES)
    if not total > 0:
        return dict.fromkeys(MODALITIES, 0)
    exact = {m: cells * s.relevance.get(m, 0.0) / total for m in MODALITIES}
    counts = {m: int(x) for m, x in exact.items()}
    for m in sorted(MODALITIES, key=lambda m: counts[m] - exact[m])[: cells - sum(counts.values())]:
        counts[m] += 1
    return counts


def _alone(s: SegmentPrediction, m: str, narrow: bool) -> Text:
    from rich.text import Text

    if m in s.missing:
        return Text("missing", style="dim italic")
    said = s.alone(m)
    if said is None:
        return Text("–", style="dim")
    if s.score is not None or said[0] == "score":
        return Text(f"{said[1]:+.2f}")
    return Text(plain(said[0] if narrow else f"{said[0]} {percent(said[1])}"))


def remarks(prediction: VideoPrediction) -> Iterator[str]:
    """What holds for the whole, then what was missing or odd, how often."""
    yield from map(plain, prediction.notes)
    num = len(prediction.segments)
    if not num:
        yield "no segments"
    counts: Counter[str] = Counter()
    for s in prediction.segments:
        if s.abstained:
            counts[f"unsure: {s.because}" if s.because else "unsure"] += 1
        for m in MODALITIES:
            note = s.notes.get(m, "")
            if m in s.missing or note:
                counts[f"{m}{' missing' if m in s.missing else ''}{f': {note}' if note else ''}"] += 1
    for said, count in counts.most_common(MOST_NOTES):
        yield plain(said) + (f" ({count} of {num} segments)" if num > 1 else "")
    if len(counts) > MOST_NOTES:
        yield f"and {len(counts) - MOST_NOTES} more, in the JSON"
