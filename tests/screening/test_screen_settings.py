"""Settings: an unknown or impossible one is refused before any work."""

import pytest

from moodal.config import read_options
from moodal.screening.settings import ScreenSettings
from moodal.types import InputError


def test_a_file_changes_what_it_names_and_an_assignment_overrules_it(tmp_path):
    (tmp_path / "s.toml").write_text('min_s = 2\ncut = "speech"\nvoices = false\nmax_yaw_deg = 20.5\n')
    found = read_options(ScreenSettings, "screen", tmp_path / "s.toml", ["min_s=1.5"])
    assert found == ScreenSettings(min_s=1.5, cut="speech", voices=False, max_yaw_deg=20.5)
    assert read_options(ScreenSettings, "screen") == ScreenSettings()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("min_sec = 2", r"no setting called 'min_sec'; did you mean 'min_s'\?"),
        ("[faces]\nmax = 1", r"no table in .* called \'faces\'"),
        ("min_s = 20", "need 0 <= min_s < max_s, got 20.0 and 15.0"),
        ("min_speech_share = 30", "min_speech_share is a share, from 0 to 1, got 30.0"),
        ("max_yaw_deg = 0", "max_yaw_deg must be above 0"),
        ("max_voice_distance = 3", "from 0 to 2, got 3.0"),
        ("looks_per_s = 0", "looks_per_s must be above 0"),
        ("pause_s = 0.1", "pause_s must be from 0.2 to 10"),
        ("min_loudness_db = nan", "min_loudness_db must be a finite number"),
        ("max_s = inf", "max_s must be a finite number"),
        ('cut = "scene"', "no way to cut called 'scene'"),
        ('min_s = "soon"', "min_s needs a value like 1.0"),
        ("min_s =", "is not valid TOML"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, text, message):
    (tmp_path / "s.toml").write_text(text)
    with pytest.raises(InputError, match=message):
        read_options(ScreenSettings, "screen", tmp_path / "s.toml")


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.toml does not exist; settings are a TOML file"):
        read_options(ScreenSettings, "screen", tmp_path / "none.toml")
