"""One picture for one segment and for thousands, with pictures, with sound only, with nothing."""

import logging
import os
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.image import imread
from tests.media.conftest import every, tone
from tests.media.test_shots import scenes
from tests.serving.predictions import happy, of, scored, unsure

from moodal.serving import timeline
from moodal.serving.colours import MODALITY_COLOURS, colours_of
from moodal.serving.timeline import draw_timeline
from moodal.types import InputError

DATA = Path(os.environ.get("MOODAL_DATA", Path(__file__).parents[3] / "shared" / "data"))


def drawn(tmp_path, prediction, video=None):
    out = tmp_path / "a.png"
    draw_timeline(prediction, video, out)
    return (255 * imread(out)[..., :3]).round().astype(int)


def share_of(image, colour):
    """How much of the picture has exactly this colour."""
    rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return float((np.abs(image - rgb).max(-1) <= 1).mean())


def words_of(prediction, video=None):
    """Everything that is written on it."""
    figure = timeline._Timeline(prediction, video).draw()
    texts = [t.get_text() for ax in figure.axes for t in [*ax.texts, *ax.get_xticklabels()]] + [
        t.get_text() for t in figure.texts
    ]
    return texts + [t.get_text() for legend in figure.legends for t in legend.get_texts()]


def test_an_emotion_is_as_high_as_it_is_probable(tmp_path):
    sure, less = (
        share_of(drawn(tmp_path, of(happy(probabilities={"happy": p, "sad": 1 - p}))), colours_of(["happy"])["happy"])
        for p in (0.9, 0.45)
    )
    assert sure == pytest.approx(2 * less, rel=0.25)


def test_relevance_has_the_share_of_its_modality(tmp_path):
    image = drawn(tmp_path, of(happy(relevance={"text": 0.25, "audio": 0.0, "vision": 0.75})))
    text, audio, vision = (share_of(image, MODALITY_COLOURS[m]) for m in ("text", "audio", "vision"))
    assert vision == pytest.approx(3 * text, rel=0.25)
    assert audio < text / 20


def test_what_is_said_is_written(tmp_path):
    said = words_of(of(happy(), unsure(), notes=("prior: nobody trained it",)))
    for text in ("happy", "72%", "happy 80%", "sad 60%", "unsure", "its best guess is below 50%", "Ann: how nice",
                 "no transcript", "60%",
                 "prior: nobody trained it", "2 segments, 1 unsure · 0:04.0 · prior", "a.mp4", "0:02"):  # fmt: skip
        assert any(text in t for t in said), text


def test_what_to_know_of_a_modality_that_is_there_is_written_too():
    assert "sad 60% · a face in 12 of 50 frames" in words_of(of(happy(notes={"vision": "a face in 12 of 50 frames"})))


def test_the_unsure_has_no_colour(tmp_path):
    image = drawn(tmp_path, of(unsure(relevance=dict.fromkeys(MODALITY_COLOURS, 0.0), unimodal={})))
    assert max(share_of(image, c) for c in (*colours_of(["happy", "sad"]).values(), *MODALITY_COLOURS.values())) < 0.001


def test_scores_are_drawn_by_their_sign(tmp_path):
    said = words_of(of(scored(-1.5), scored(0.5, 2.0, 4.0), classes=()))
    assert {"-1.50", "+0.50", "-0.75"} <= set(said)


def test_thumbnails_are_of_the_middle_of_their_segments(make_video, tmp_path):
    """A red half and a blue half; sound ends the row."""

    def draw(index, width, height):
        return np.full((height, width, 3), (250, 10, 10) if index < 50 else (10, 10, 250), np.uint8)

    video = make_video("a.mp4", every(100), sound=[(0.0, tone(4))], size=(160, 90), draw=draw)
    image = drawn(tmp_path, of(happy(0, 2), happy(2, 4)), video)
    is_red = (image[..., 0] > 200) & (image[..., 1:].max(-1) < 90)
    is_blue = (image[..., 2] > 200) & (image[..., :2].max(-1) < 90)
    middle = image.shape[1] * (timeline.LEFT_IN + 5.3) / 12
    assert is_red.sum() == pytest.approx(is_blue.sum(), rel=0.2)
    assert is_red.mean() > 0.02
    assert np.nonzero(is_red)[1].max() < middle < np.nonzero(is_blue)[1].min()


def test_of_many_segments_so_many_thumbnails_as_fit(make_video):
    video = make_video("a.mp4", every(100), size=(160, 90), draw=scenes(50))
    many = timeline._Timeline(of(*(happy(k / 50, (k + 1) / 50) for k in range(200))), video)
    pictures = many._pictures(video, (160, 90))
    places = [x for x, _, _ in pictures]
    width = timeline.PICTURE_IN * 16 / 9
    assert len(pictures) == int(many.inner_in / (width + timeline.PICTURE_GAP_IN))
    assert min(np.diff(places)) >= width
    assert places[0] >= width / 2
    assert places[-1] <= many.inner_in - width / 2


def test_one_segment_has_several_pictures_and_one_is_of_its_middle(make_video):
    video = make_video("a.mp4", every(100), size=(160, 90), draw=scenes(50))
    one = timeline._Timeline(of(happy(0, 4)), video)._pictures(video, (160, 90))
    assert len(one) % 2 == 1
    assert one[len(one) // 2][1] == pytest.approx(2.0)


def test_cuts_and_silence_are_shown(make_video):
    quiet = np.zeros(4 * 44_100, np.float32)
    video = make_video("a.mp4", every(100), sound=[(0.0, quiet)], draw=scenes(50))
    said = words_of(of(happy(0, 4), cuts_s=(2.0,)), video)
    assert {"cuts", "silent"} <= set(said)
    assert "no sound" in words_of(of(happy(0, 4)), make_video("b.mp4", every(100), draw=scenes(50)))


def test_sound_alone_is_a_wave(make_video, tmp_path):
    video = make_video("a.mkv", sound=[(0.0, np.concatenate([tone(2), np.zeros(88_200, np.float32)]))])
    image = drawn(tmp_path, of(happy(0, 4)), video)
    wave = (np.abs(image - 0x77).max(-1) <= 1)[: image.shape[0] // 3]
    middle = int(image.shape[1] * (timeline.LEFT_IN + 5.3) / 12)
    assert wave[:, :middle].sum() > 20 * wave[:, middle + 20 :].sum() > 0


def test_a_video_that_cannot_be_read_costs_only_its_pictures(tmp_path, caplog):
    (tmp_path / "a.mp4").write_bytes(b"no video")
    with caplog.at_level(logging.WARNING):
        assert drawn(tmp_path, of(happy()), tmp_path / "a.mp4").size
    assert "no pictures on the timeline" in caplog.text


@pytest.mark.parametrize("num", [0, 1, 300, 2100])
def test_any_number_of_segments_is_one_picture(tmp_path, num):
    segments = [happy(k, k + 0.9) if k % 3 else unsure(k, k + 0.9) for k in range(num)]
    height, width, _ = drawn(tmp_path, of(*segments, duration_s=float(max(1, num)))).shape
    assert width <= timeline.WIDTHS_IN[1] * timeline.DPI
    assert height < 1200
    assert (tmp_path / "a.png").stat().st_size < 1e6


def test_many_short_segments_have_no_words():
    said = words_of(of(*(happy(k, k + 0.9) for k in range(300)), duration_s=300.0))
    assert not any("how nice" in t for t in said)
    assert "happy" in said  # in the legend


def test_people_who_talk_at_once_stand_side_by_side():
    assert timeline._side_by_side([happy(0, 3), happy(1, 2), happy(1, 4)]) == [(0, 1), (1, 2), (1, 4)]


def test_foreign_letters_formulas_and_markup_are_no_trouble(tmp_path):
    segments = [happy(0, 2, "你好 $x_1$ <b>&amp;</b> \x1b[2J 👩‍👧"), happy(2, 4, "costs $5 or $6", emotion="开心")]
    for kind in ("png", "svg"):
        draw_timeline(of(*segments, classes=("开心", "happy")), None, tmp_path / f"a.{kind}")
    ElementTree.parse(tmp_path / "a.svg")  # noqa: S314 (our own file)


def test_words_without_letters_for_them_are_said_to_be_elsewhere(monkeypatch):
    monkeypatch.setattr(timeline, "_letters", lambda: frozenset(map(ord, "abcdefghijklmnopqrstuvwxyz .:,%0123456789")))
    said = words_of(of(happy(text="Ж" * 20)))
    assert any("no font on this machine" in t for t in said)
    assert not any("ЖЖЖ" in t for t in said)


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_the_same_prediction_gives_the_same_bytes(tmp_path, kind):
    for name in ("a", "b"):
        draw_timeline(of(happy(), unsure()), None, tmp_path / f"{name}.{kind}")
    assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()


def test_other_kinds_of_picture_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"a timeline is a .png or an .svg, got 'a.gif'"):
        draw_timeline(of(happy()), None, tmp_path / "a.gif")


@pytest.mark.parametrize("places", [[0.0, 0.1, 0.2], [9.9, 10.0], [5.0, 5.0, 5.0], [0.0, 10.0], []])
def test_thumbnails_move_apart_and_stay_inside(places):
    found = timeline._apart(places, 2.0, 10.0)
    assert all(b - a >= 2.0 - 1e-9 for a, b in pairwise(found))
    assert all(1.0 - 1e-9 <= x <= 9.0 + 1e-9 for x in found)


@pytest.mark.corpus
@pytest.mark.skipif(not (DATA / "clips").exists(), reason="no real data here")
def test_a_real_film(tmp_path):
    video = DATA / "clips" / "short_hamilton_clip.mp4"
    assert drawn(tmp_path, of(happy(0, 5), unsure(5, 10), duration_s=10.0), video).size
