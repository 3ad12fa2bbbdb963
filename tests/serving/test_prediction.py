"""What a prediction says is said alike everywhere."""

import json

import pytest
from tests.serving.predictions import happy, of, scored, unsure

from moodal.serving.colours import EMOTIONS, MODALITY_COLOURS, SPARE, colours_of, score_colour
from moodal.serving.prediction import percent, plain


def test_the_dictionary_is_the_contract_and_nothing_in_it_is_rounded():
    said = of(happy(1 / 3, 2.0), unsure(), notes=("untrained",), cuts_s=(1.5,)).as_dict()
    assert json.loads(json.dumps(said)) == said
    assert {"video", "model", "segments"} <= said.keys()
    first, second = said["segments"]
    assert {
        "start_s",
        "end_s",
        "text",
        "emotion",
        "probabilities",
        "relevance",
        "unimodal",
        "missing",
        "abstained",
    } <= (first.keys())
    assert first["start_s"] == 1 / 3
    assert (second["emotion"], second["abstained"], second["missing"]) == (None, True, ["text", "vision"])


def test_an_answer_in_words():
    assert happy().answer() == "happy 72%"
    assert unsure().answer() == "unsure"
    assert scored(-0.5).answer() == "-0.50"
    assert happy().alone("vision") == ("sad", 0.6)
    assert unsure().alone("vision") is None
    assert unsure().likeliest == ("neutral", 0.4)
    assert scored(1.0).likeliest is None


@pytest.mark.parametrize(
    ("share", "said"), [(0.0, "0%"), (1.0, "100%"), (0.999, "99%"), (0.001, "1%"), (0.725, "72%"), (float("nan"), "?")]
)
def test_nothing_uncertain_is_certain(share, said):
    assert percent(share) == said


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        (None, ""),
        ("two\nlines\tand  spaces ", "two lines and spaces"),
        ("\x1b[31mred\x07", "[31mred"),
        ("a\u202eb\u2066c", "abc"),
        ("line\u2028break", "line break"),
        ("你好, naïve 👩‍👧", "你好, naïve 👩‍👧"),
        ("می‌خواهم", "می‌خواهم"),
    ],
)
def test_only_what_can_be_seen_is_shown(text, seen):
    assert plain(text) == seen


def test_an_emotion_keeps_its_colour_whatever_stands_beside_it():
    alone = colours_of(["happy"])["happy"]
    assert colours_of(["sad", "Happy", "joy", "dread"])["Happy"] == alone == colours_of(["joy"])["joy"]


def test_classes_nobody_knows_get_colours_of_their_own_and_keep_them_in_any_order():
    names = ["dread", "awe", "schadenfreude", "开心", "sad", "happy"]
    found = colours_of(names)
    assert len(set(found.values())) == len(names)
    assert colours_of(reversed(names)) == found
    assert len(colours_of([f"class {k}" for k in range(60)])) == 60


def seen_by_deuteranopes(colour):
    """sRGB without the middle cones (Machado et al., 2009), as CIE Lab."""
    import numpy as np

    rgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    without = [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = np.array(to_xyz) @ (np.array(without) @ linear).clip(0, 1) / [0.9505, 1.0, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def test_emotions_are_told_apart_by_those_who_see_red_and_green_alike():
    import numpy as np

    common = list(colours_of(["neutral", "happy", "sad", "angry", "fear", "disgust", "surprise"]).values())
    seen = [seen_by_deuteranopes(c) for c in common]
    apart = [np.linalg.norm(a - b) for i, a in enumerate(seen) for b in seen[:i]]
    assert min(apart) > 10


def test_emotions_and_modalities_share_no_colour():
    assert not {*EMOTIONS, *SPARE} & set(MODALITY_COLOURS.values())
    assert len({*EMOTIONS, *SPARE}) == len(EMOTIONS) + len(SPARE)


def test_scores_go_from_blue_to_orange_and_no_farther():
    assert score_colour(-1) == score_colour(-7) != score_colour(0) != score_colour(1) == score_colour(2)
