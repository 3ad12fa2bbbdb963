"""Which stretches of a video are predicted: given in a table, or found by its words, by its speech, by its cuts.

A stretch is what has one emotion to a model, so none is longer than ``MAX_S``; one shorter than ``MIN_S`` says nothing.
"""

from __future__ import annotations

import logging
import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

from moodal.data.table import read_columns
from moodal.extraction.items import Item
from moodal.extraction.work import cut_items
from moodal.media import MediaError
from moodal.media.decode import MAX_DURATION_S, Probe, read_frames, stream_audio
from moodal.media.shots import LAST_S, find_shots
from moodal.media.speech import find_speech
from moodal.media.transcripts import Line
from moodal.types import InputError, Segment

log = logging.getLogger(__name__)

MAX_S = 10.0  # as long as the utterances of the field's corpora are at most
MIN_S = 0.5
NEAR_S = 1.0  # what is shorter than MIN_S joins speech that is no farther away
MEASURE_HZ = 1_000  # of sound of which only the length is wanted
MAX_SEGMENTS = 10_000  # a day in spans of 10 s
HOW = ("auto", "whole", "transcript", "speech", "shots")

Cut = tuple[Item, str | None]  # what is predicted, and who speaks


def find_segments(
    video: Path, found: Probe, lines: Sequence[Line], how: str = "auto", shots: Sequence[Segment] | None = None
) -> list[Cut]:
    """The stretches of ``video`` by time, with their words and speaker where ``lines`` say them.

    how: "whole", one; "transcript", one per line; "speech", what is said, divided where the camera cuts; "shots"; a
    number, spans of so many seconds; "auto": the lines where there are any, a video of up to 10 s whole, else speech,
    else shots, else equal spans. Speech and shots give none longer than 10 s. ``shots``: where they are known already.
    """
    seconds = _seconds(how)
    if seconds is None and how == "transcript" and not lines:
        raise InputError(
            f"{video} has no transcript to cut it by; put one beside it (.srt, .vtt, .ass, .csv), or cut by speech"
        )
    if how == "transcript" or (how == "auto" and lines):
        said = _lines(video, found, lines)
        if said:
            return _bounded(video, said)
        if how == "transcript":
            raise InputError(f"{video}: no line of its transcript lies within it; cut it by speech")
    end_s = found.duration_s or _heard_and_seen_until(video)
    if not 0 < end_s < math.inf:
        raise MediaError(f"{video} lasts no time at all")
    whole = Segment(0.0, min(end_s, MAX_DURATION_S))
    if seconds is not None:
        stretches = _spans(video, whole, seconds)
    elif how == "whole" or (how == "auto" and end_s <= MAX_S):
        stretches = [whole]
    else:
        stretches = _found(video, found, how, shots) or _equal(whole, MAX_S)
    items = [Item(_name(video, k, len(stretches)), s) for k, s in enumerate(stretches)]
    return _bounded(video, cut_items(items, found, tuple(lines), "whole"))


def read_segments(path: Path, lines: Sequence[Line] = ()) -> list[Cut]:
    """The rows of a table (.csv, .tsv, .parquet) with start_s and end_s, by time; text and speaker may stand there too.

    A row without words gets those of ``lines`` whose middle lies in it.
    """
    table = read_columns(path)
    if not {"start_s", "end_s"} <= table.keys():
        raise InputError(f"{path} has no columns start_s and end_s; it has {', '.join(map(repr, table))}")
    if len(table["start_s"]) > MAX_SEGMENTS:
        raise InputError(f"{path} has {len(table['start_s'])} segments, more than {MAX_SEGMENTS}; divide it")
    rows: list[Cut] = []
    for number, (start, end) in enumerate(zip(table["start_s"], table["end_s"], strict=True)):
        segment = _segment(path, number, start, end)
        text, speaker = (table[c][number] if c in table else None for c in ("text", "speaker"))
        item = Item(_name(path, number, len(table["start_s"])), segment, text if text is None else str(text))
        ((item, heard),) = cut_items([item], Probe(None, None, None), tuple(lines), "whole")
        rows.append((item, heard if speaker is None else str(speaker)))
    if not rows:
        raise InputError(f"{path} has no rows; a segment is a row with start_s and end_s")
    return _bounded(path, sorted(rows, key=lambda row: (_of(row).start_s, _of(row).end_s)))


def _of(row: Cut) -> Segment:
    assert row[0].segment is not None
    return row[0].segment


def _segment(path: Path, number: int, start: object, end: object) -> Segment:
    try:
        segment = Segment(float(str(start)), float(str(end)))
        if not segment.end_s <= MAX_DURATION_S:
            raise ValueError(f"no video lasts longer than {MAX_DURATION_S:g} s")
    except ValueError as e:
        raise InputError(f"{path}: row {number + 1}: start_s {start!r} and end_s {end!r} are no segment ({e})") from e
    return segment


def _seconds(how: str) -> float | None:
    """The length that ``how`` names, or None where it names a way to find segments."""
    if how in HOW:
        return None
    try:
        seconds = float(how)
    except ValueError:
        seconds = math.nan
    if not MIN_S <= seconds <= MAX_DURATION_S:
        raise InputError(f"segments are cut by {', '.join(HOW)} or a number of seconds from {MIN_S:g}, got {how!r}")
    return seconds


def _name(path: Path, number: int, count: int) -> str:
    return path.stem if count == 1 else f"{path.stem}_{number:03d}"


def _bounded(path: Path, cuts: list[Cut]) -> list[Cut]:
    if len(cuts) > MAX_SEGMENTS:
        raise InputError(f"{path} would be {len(cuts)} segments, more than {MAX_SEGMENTS}; make them longer")
    return cuts


def _lines(video: Path, found: Probe, lines: Sequence[Line]) -> list[Cut]:
    """One stretch per line that is said within the video; some transcripts belong to a longer cut of it."""
    end_s = found.duration_s or MAX_DURATION_S
    inside = [x for x in lines if max(0.0, x.start_s) < min(x.end_s, end_s)]
    if len(inside) < len(lines):
        log.warning("%s: %d of %d lines lie after its end or last no time", video, len(lines) - len(inside), len(lines))
    return [
        (Item(_name(video, k, len(inside)), Segment(max(0.0, x.start_s), min(x.end_s, end_s)), x.text), x.speaker)
        for k, x in enumerate(inside)
    ]


def known_shots(video: Path, found: Probe) -> tuple[Segment, ...]:
    """Its shots; none where its picture cannot be read, which costs only them."""
    return _where_it_can_be_read(find_shots, video) if found.video else ()


def _where_it_can_be_read(find: Callable[[Path], tuple[Segment, ...]], video: Path) -> tuple[Segment, ...]:
    try:
        return find(video)
    except MediaError as e:
        log.warning("%s", e)
        return ()


def _found(video: Path, found: Probe, how: str, shots: Sequence[Segment] | None) -> list[Segment]:
    """By speech, else by shots; empty where there is neither."""
    shots = known_shots(video, found) if shots is None else shots
    speech = _where_it_can_be_read(find_speech, video) if found.audio and how != "shots" else ()
    if how == "speech" and not speech:
        log.warning("%s: nobody speaks; it is cut by its %s instead", video, "shots" if shots else "length")
    if how == "shots" and not shots:
        log.warning("%s: there is no picture; it is cut by its length instead", video)
    return _at_most(divide_at_cuts(speech, shots) or shots)


def divide_at_cuts(speech: Sequence[Segment], shots: Sequence[Segment]) -> list[Segment]:
    """Speech in pieces that lie in one shot each.

    A piece below ``MIN_S`` joins the longer of its neighbours in the same shot, else the rest of what was said without
    a pause, across the cut: a word that a cut falls into belongs to its sentence.
    """
    cuts = [shot.start_s for shot in shots[1:]]
    pieces: list[tuple[Segment, int]] = []  # and the number of the shot
    for stretch in speech:
        first, last = bisect_right(cuts, stretch.start_s), bisect_left(cuts, stretch.end_s)
        edges = [stretch.start_s, *cuts[first:last], stretch.end_s]
        pieces += [(Segment(a, b), first + j) for j, (a, b) in enumerate(pairwise(edges))]
    k = 0
    while k < len(pieces):
        other = _partner(pieces, k) if _length(pieces[k][0]) < MIN_S else -1
        if other < 0:
            k += 1
            continue
        k, last = sorted((k, other))
        joined = Segment(pieces[k][0].start_s, pieces[last][0].end_s)
        pieces[k : last + 1] = [(joined, pieces[other][1])]  # and is looked at again
    return [segment for segment, _ in pieces]


def _partner(pieces: Sequence[tuple[Segment, int]], k: int) -> int:
    """The neighbour that piece ``k`` joins, or -1."""
    segment, shot = pieces[k]
    near = [j for j in (k - 1, k + 1) if 0 <= j < len(pieces) and _distance(pieces[j][0], segment) <= NEAR_S]
    same_shot = [j for j in near if pieces[j][1] == shot]
    touching = [j for j in near if _distance(pieces[j][0], segment) == 0]
    return max(same_shot or touching, key=lambda j: _length(pieces[j][0]), default=-1)


def _distance(a: Segment, b: Segment) -> float:
    return max(a.start_s - b.end_s, b.start_s - a.end_s, 0.0)


def _length(segment: Segment) -> float:
    return segment.end_s - segment.start_s


def _at_most(segments: Iterable[Segment], limit_s: float = MAX_S) -> list[Segment]:
    return [part for segment in segments for part in _equal(segment, limit_s)]


def _equal(segment: Segment, limit_s: float) -> list[Segment]:
    """Equal parts of at most ``limit_s``."""
    count = max(1, math.ceil(_length(segment) / limit_s - 1e-9))
    edges = [segment.start_s + _length(segment) * k / count for k in range(count)]
    return [Segment(a, b) for a, b in pairwise([*edges, segment.end_s])]


def _spans(video: Path, whole: Segment, seconds: float) -> list[Segment]:
    """From the beginning on; what is left at the end and too short belongs to the last."""
    count = max(1, math.ceil((whole.end_s - MIN_S) / seconds))
    if count > MAX_SEGMENTS:
        raise InputError(f"{video} would be {count} segments, more than {MAX_SEGMENTS}; make them longer")
    edges = [k * seconds for k in range(count)]
    return [Segment(a, b) for a, b in pairwise([*edges, whole.end_s])]


def _heard_and_seen_until(video: Path) -> float:
    """The end of a file that does not say when it ends, found by reading it."""
    seen = (frame.time_s + LAST_S for frame in read_frames(video, max_side_px=16))
    heard = (time_s + len(x) / MEASURE_HZ for time_s, x in stream_audio(video, rate_hz=MEASURE_HZ))
    return max(_last(seen), _last(heard))


def _last(times_s: Iterable[float]) -> float:
    """The largest, as far as they can be read."""
    last_s = 0.0
    with suppress(MediaError):
        for time_s in times_s:
            last_s = max(last_s, time_s)
    return last_s
