"""Which clips shots become, and which words are theirs."""

from moodal.data.clips import Clip, Shot
from moodal.screening.settings import ScreenSettings
from moodal.screening.spans import cut_shots, with_words
from moodal.types import Segment


def shot(number, start_s, end_s):
    return Shot(f"e_{number:04d}", "e.mp4", "e", number, start_s, end_s, 0, 0, None, "made")


def spans(clips):
    return [(round(c.start_s, 2), round(c.end_s, 2)) for c in clips]


SPEECH = (Segment(10.0, 12.0), Segment(12.3, 14.0), Segment(15.0, 18.0), Segment(70.0, 71.0))


def test_every_shot_is_a_clip_unless_asked_otherwise():
    clips = cut_shots([shot(0, 0, 60), shot(1, 60, 65)], SPEECH, ScreenSettings())
    assert [(c.id, c.start_s, c.end_s) for c in clips] == [("e_0000", 0, 60), ("e_0001", 60, 65)]


def test_a_long_shot_becomes_its_stretches_of_speech_and_a_short_one_stays():
    clips = cut_shots([shot(0, 0, 60), shot(1, 65, 75)], SPEECH, ScreenSettings(cut="speech"))
    assert spans(clips) == [(9.9, 14.1), (14.9, 18.1), (65.0, 75.0)]
    assert [c.id for c in clips] == ["e_0000-0009900", "e_0000-0014900", "e_0001"]


def test_a_stretch_stays_within_its_shot():
    clips = cut_shots([shot(0, 11, 30)], SPEECH, ScreenSettings(cut="speech"))
    assert spans(clips) == [(11.0, 14.1), (14.9, 18.1)]


def test_a_long_shot_in_which_nobody_speaks_stays_whole_so_that_its_row_says_so():
    clips = cut_shots([shot(0, 20, 60)], SPEECH, ScreenSettings(cut="speech"))
    assert spans(clips) == [(20.0, 60.0)]


def test_long_speech_is_cut_at_its_longest_pauses():
    speech = tuple(Segment(float(k), k + 0.75 - 0.05 * (k == 5)) for k in range(12))
    clips = cut_shots([shot(0, 0, 12)], speech, ScreenSettings(cut="speech", max_s=7.0))
    assert spans(clips) == [(0.0, 5.8), (5.9, 11.85)]
    assert all(c.duration_s <= 7.0 for c in clips)


def test_a_clip_with_other_settings_does_not_take_anothers_name():
    a = cut_shots([shot(0, 0, 60)], SPEECH, ScreenSettings(cut="speech"))
    b = cut_shots([shot(0, 0, 60)], SPEECH, ScreenSettings(cut="speech", pause_s=0.25))
    same = {c.id for c in a} & {c.id for c in b}
    assert same == {"e_0000-0009900", "e_0000-0014900"}
    assert len({c.id for c in b}) == len(b) == 3


def test_a_clip_has_the_words_whose_middle_lies_in_it():
    clips = [Clip("a", "e.mp4", "e", 0.0, 2.0), Clip("b", "e.mp4", "e", 2.0, 4.0), Clip("c", "e.mp4", "e", 4.0, 5.0)]
    lines = [(0.0, 1.0, "Good", "Ann"), (1.0, 2.5, "day.", "Ann"), (2.2, 3.0, "Who?", "Ann"), (3.0, 4.0, "I.", "Bo")]
    found = with_words(clips, lines)
    assert [(c.text, c.speaker) for c in found] == [("Good day.", "Ann"), ("Who? I.", None), (None, None)]
