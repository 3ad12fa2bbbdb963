"""Duplicates: the same sound and the same pictures, whatever the encoder, the volume and the phase."""

import numpy as np
import pytest

from moodal.data.clips import Clip
from moodal.screening.duplicates import copies, sound_outline, sound_pairs
from moodal.screening.measures import NUM_BANDS, STEP_S


def bands(seconds, seed):
    """Half decibels below full scale, smooth as the windows are."""
    rng = np.random.default_rng(seed)
    levels = rng.uniform(30, 120, (round(seconds / STEP_S) + 2, NUM_BANDS))
    return ((levels[:-1] + levels[1:]) / 2)[: round(seconds / STEP_S)].astype(np.uint8)


def outline(sound, start_s, end_s):
    return sound_outline(sound, start_s, end_s, STEP_S).astype(np.float32)


def test_a_copy_elsewhere_softer_and_with_noise_sounds_the_same():
    original = bands(3, 0)
    noise = np.random.default_rng(9).integers(-4, 5, original.shape)
    copy = np.concatenate(
        [bands(7.3, 1), np.clip(original.astype(int) + 12 + noise, 0, 200).astype(np.uint8), bands(2, 2)]
    )
    assert outline(original, 0, 3) @ outline(copy, 7.3, 10.3) > 0.95
    assert outline(original, 0, 3) @ outline(copy, 4.0, 7.0) < 0.5


def test_a_cut_that_falls_a_picture_later_changes_little():
    sound = np.repeat(bands(3, 0), 4, axis=0)
    assert outline(sound, 4.0, 8.0) @ outline(sound, 4.04, 8.0) > 0.9


@pytest.mark.parametrize(("start_s", "end_s"), [(0.0, 0.02), (9.0, 12.0), (50.0, 60.0)])
def test_what_is_too_short_or_beyond_the_sound_has_an_outline_of_numbers(start_s, end_s):
    assert np.isfinite(outline(bands(10, 0), start_s, end_s)).all()
    assert np.isfinite(outline(np.zeros((0, NUM_BANDS), np.uint8), start_s, end_s)).all()


def test_silence_is_like_nothing_not_even_like_itself():
    silent = np.full((100, NUM_BANDS), 200, np.uint8)
    assert outline(silent, 0, 4) @ outline(silent, 0, 4) == 0


def clips(*lengths_s):
    return [Clip(str(k), "v", "e", 0.0, length) for k, length in enumerate(lengths_s)]


def test_only_clips_of_one_length_are_pairs_and_the_earlier_comes_first():
    same = np.tile(outline(bands(3, 0), 0, 3), (4, 1))
    assert sound_pairs(clips(3.1, 5.0, 3.0, 3.04), same) == [(0, 2), (0, 3), (2, 3)]


def test_pairs_are_found_among_many():
    rng = np.random.default_rng(0)
    outlines = rng.standard_normal((1500, 64)).astype(np.float32)
    outlines /= np.linalg.norm(outlines, axis=1, keepdims=True)
    outlines[1400] = outlines[3]
    lengths = rng.uniform(1, 10, 1500)
    lengths[1400] = lengths[3] + 0.02
    assert sound_pairs(clips(*lengths), outlines) == [(3, 1400)]


def test_a_thousand_copies_are_no_million_pairs():
    same = np.tile(outline(bands(3, 0), 0, 3), (1_100, 1))
    pairs = sound_pairs(clips(*[3.0] * 1_100), same)
    assert len(pairs) <= 8 * 1_100
    assert all((0, k) in set(pairs) for k in (1, 600, 1_099))


def test_the_first_stays_and_all_others_are_its_copies():
    grey = np.zeros((5, 4, 4), np.uint8)
    assert copies([(0, 2), (0, 3), (2, 3)], {0: grey, 2: grey + 3, 3: grey + 5}) == {2: 0, 3: 0}


def test_the_same_sound_over_other_pictures_is_no_copy():
    grey = np.zeros((5, 4, 4), np.uint8)
    assert copies([(0, 1)], {0: grey, 1: grey + 60}) == {}
    assert copies([(0, 1)], {0: grey}) == {}
    assert copies([(0, 1)], {0: grey, 1: grey[:0]}) == {}
