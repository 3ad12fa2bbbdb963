"""Stretches of one file through given extractors: each as if it were alone, and no stage costs another."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moodal.extraction.items import Item
from moodal.extraction.work import DONE, FAILED, MISSING, Extracted, cut_items, extract_items, extractor
from moodal.features.extractor import Features
from moodal.media import MediaError
from moodal.media.decode import Frame, probe
from moodal.media.transcripts import read_transcript
from moodal.types import InputError, Segment

DATA = Path(os.environ.get("MOODAL_DATA", Path(__file__).parents[3] / "shared" / "data"))
RATE_HZ = 22_050


class Watcher:
    """The mean brightness of each picture."""

    rate_hz = 10.0

    def __call__(self, frames: Iterator[Frame]) -> Features:
        seen = [(f.rgb.mean(), f.time_s) for f in frames]
        values = np.array([[brightness] for brightness, _ in seen], np.float32).reshape(-1, 1)
        return Features(values, np.array([t for _, t in seen], np.float64))


class Listener:
    rate_hz = RATE_HZ

    def __call__(self, samples: Any, rate_hz: int) -> Features:
        return Features(samples[::100, None].copy(), np.arange(len(samples[::100])) * 100 / rate_hz)


BOTH = {"vision": Watcher(), "audio": Listener()}


def video_with_sound(path: Path, seconds: int = 2) -> Path:
    """Grey pictures, ten a second, and noise."""
    import av

    with av.open(str(path), "w") as container:
        pictures, noise = container.add_stream("mpeg4", rate=10), container.add_stream("pcm_s16le", rate=RATE_HZ)
        pictures.width, pictures.height, pictures.pix_fmt = 64, 48, "yuv420p"
        samples = np.random.default_rng(0).integers(-3000, 3000, (1, seconds * RATE_HZ)).astype(np.int16)
        for k in range(seconds * 10):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 10 * (k % 20), np.uint8), "rgb24")
            frame.pts = k
            container.mux(pictures.encode(frame))
            step = RATE_HZ // 10
            block = av.AudioFrame.from_ndarray(samples[:, k * step : (k + 1) * step], "s16", "mono")
            block.sample_rate, block.pts = RATE_HZ, k * step
            container.mux(noise.encode(block))
        container.mux([*pictures.encode(None), *noise.encode(None)])
    return path


def assert_same(one: Extracted, other: Extracted) -> None:
    assert one.item == other.item
    assert one.values.keys() == other.values.keys()
    for m in one.values:
        np.testing.assert_array_equal(one.values[m], other.values[m])
        np.testing.assert_array_equal(one.times_s[m], other.times_s[m])
    said = [{m: (s.status, s.steps, s.note) for m, s in e.stages.items()} for e in (one, other)]
    assert said[0] == said[1]


@pytest.mark.parametrize("name", ["a.mkv", "a.avi"])
def test_many_stretches_in_any_order_are_each_as_if_alone(tmp_path: Path, name: str) -> None:
    file = video_with_sound(tmp_path / name, 12)
    cuts = [(8.0, 9.0), (0.0, 1.0), (1.0, 2.5), (2.0, 3.0), (30.0, 31.0), (10.5, 12.0)]
    items = [(Item(f"i{k}", Segment(*cut)), None) for k, cut in enumerate(cuts)]
    items.append((Item("all"), "A"))
    together = extract_items(file, items, BOTH)
    assert [e.item.id for e in together] == ["i0", "i1", "i2", "i3", "i4", "i5", "all"]
    assert [e.stages["vision"].steps for e in together] == [10, 10, 15, 10, 0, 15, 120]
    assert together[-1].speaker == "A"
    for item, found in zip(items, together, strict=True):
        assert_same(extract_items(file, [item], BOTH)[0], found)


@pytest.mark.parametrize(
    ("codec", "seen", "heard"),
    [
        (b"", "", ""),
        (b"V_MPEG4/ISO/ASP", "there is no decoder for its video", ""),
        (b"A_PCM/INT/LIT", "", "there is no decoder for its audio"),
    ],
)
def test_pictures_that_cannot_be_decoded_do_not_cost_the_sound_nor_the_other_way_round(
    tmp_path: Path, codec: bytes, seen: str, heard: str
) -> None:
    file = video_with_sound(tmp_path / "a.mkv")
    file.write_bytes(file.read_bytes().replace(codec, codec[:-1] + b"X") if codec else file.read_bytes())
    (found,) = extract_items(file, [(Item("a"), None)], BOTH)
    for modality, problem, steps in (("vision", seen, 20), ("audio", heard, 441)):
        stage = found.stages[modality]
        assert (stage.status, stage.steps) == ((FAILED, 0) if problem else (DONE, steps))
        assert problem in stage.note


def test_a_stage_that_fails_half_way_costs_neither_its_clip_nor_the_next(tmp_path: Path) -> None:
    class Stumbling(Watcher):
        def __call__(self, frames: Iterator[Frame]) -> Features:
            if next(frames).time_s < 0.9:
                raise InputError("it began too early")
            return super().__call__(frames)

    file = video_with_sound(tmp_path / "a.mkv")
    items = [(Item("a", Segment(0, 1)), None), (Item("b", Segment(1, 2)), None)]
    first, second = extract_items(file, items, {"vision": Stumbling(), "audio": Listener()})
    assert (first.stages["vision"].status, first.stages["vision"].note) == (FAILED, "it began too early")
    assert (second.stages["vision"].status, second.stages["vision"].steps) == (DONE, 9)
    assert first.stages["audio"].status == second.stages["audio"].status == DONE


def test_what_is_not_there_is_missing_and_says_what(tmp_path: Path) -> None:
    file = video_with_sound(tmp_path / "a.mkv")
    items = [(Item("a", Segment(5, 6)), None), (Item("b"), None)]
    late, words = extract_items(file, items, {**BOTH, "text": len}, problem="a.srt is broken")
    assert (late.stages["audio"].status, late.stages["audio"].note) == (MISSING, "no sound in this stretch")
    assert late.stages["vision"].status == MISSING
    assert (words.stages["text"].status, words.stages["text"].note) == (FAILED, "a.srt is broken")


def test_a_file_that_is_no_media_raises(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no film")
    with pytest.raises(MediaError, match="could not be opened"):
        extract_items(tmp_path / "a.mp4", [(Item("a"), None)], BOTH)


@pytest.mark.corpus
def test_the_lines_of_a_film_are_each_as_if_alone_also_to_the_face_tracker() -> None:
    file = DATA / "clips" / "friday.mp4"
    if not file.is_file():
        pytest.skip(f"{file} is not there; set MOODAL_DATA")
    items = cut_items([Item("a")], probe(file), read_transcript(file), "transcript")
    extractors = {"audio": extractor("audio33"), "vision": extractor("au_proxy")}
    together = extract_items(file, items, extractors)
    assert sum(e.stages["vision"].steps for e in together) > 30
    for item, found in zip(items, together, strict=True):
        assert_same(extract_items(file, [item], extractors)[0], found)
