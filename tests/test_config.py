"""Settings from TOML and KEY=VALUE: every key is known, every value has its type, and nothing is guessed."""

from dataclasses import FrozenInstanceError, dataclass
from pathlib import Path

import pytest

from moodal.config import (
    SHIPPED,
    TrainingSettings,
    coerce,
    parse_assignments,
    read_options,
    read_settings,
    split_settings,
)
from moodal.models import options_of
from moodal.types import InputError

OPTIONS = {"hidden": 64, "dropout": 0.2, "relevance": "softmax", "rescale": True}


@pytest.fixture
def toml(tmp_path):
    def write(text: str):
        file = tmp_path / "settings.toml"
        file.write_text(text, encoding="utf-8")
        return file

    return write


def test_a_table_belongs_to_its_model_and_the_rest_to_all(toml):
    settings = read_settings(toml("lr = 0.01\n[mre]\nhidden = 32\n[lmf]\nrank = 8\n"))
    assert settings.common == {"lr": 0.01}
    assert settings.per_model == {"mre": {"hidden": 32}, "lmf": {"rank": 8}}


def test_what_is_said_on_the_command_line_overrules_the_file_in_every_table(toml):
    settings = read_settings(toml("lr = 0.01\n[mre]\nlr = 0.02\nhidden = 32\n"), ["lr=0.5"])
    assert settings.common == {"lr": "0.5"}
    assert settings.per_model == {"mre": {"hidden": 32}}


def test_without_a_file_there_are_only_the_assignments():
    assert read_settings(None, ["lr=0.5"]).common == {"lr": "0.5"}


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"absent\.toml does not exist"):
        read_settings(tmp_path / "absent.toml")


@pytest.mark.parametrize("text", ["lr = ", "lr 0.1", "[mre"])
def test_a_file_that_is_no_toml_is_named_with_the_place(toml, text):
    with pytest.raises(InputError, match=r"settings\.toml is not valid TOML: .*\(at "):
        read_settings(toml(text))


def test_an_assignment_keeps_what_stands_behind_its_first_equals_sign():
    assert parse_assignments(["a=b=c", " lr = 0.1 "]) == {"a": "b=c", "lr": "0.1"}


@pytest.mark.parametrize("item", ["lr", "=1", " =1", ""])
def test_an_assignment_has_a_key_and_a_value(item):
    with pytest.raises(InputError, match="need KEY=VALUE"):
        parse_assignments([item])


def test_keys_go_to_the_model_or_to_training_with_the_type_of_their_default():
    options, training = split_settings(
        {"hidden": "32", "dropout": "0", "rescale": "no", "lr": "1e-4", "epochs": "7", "refit": "yes"}, OPTIONS
    )
    assert options == {"hidden": 32, "dropout": 0.0, "rescale": False}
    assert [type(v) for v in options.values()] == [int, float, bool]
    assert training == TrainingSettings(lr=1e-4, epochs=7, refit=True)


def test_what_is_not_said_stays_as_the_base_has_it():
    _, training = split_settings({"lr": 0.1}, {}, TrainingSettings(epochs=3, refit=True))
    assert training == TrainingSettings(lr=0.1, epochs=3, refit=True)


def test_an_unknown_key_names_the_nearest_and_all_known_ones():
    with pytest.raises(InputError, match=r"no setting called 'hiden'; did you mean 'hidden'\?") as error:
        split_settings({"hiden": 32}, OPTIONS)
    assert all(key in str(error.value) for key in ("batch_size", "relevance", "weight_decay"))


@pytest.mark.parametrize(
    ("key", "value", "default"),
    [
        ("epochs", "many", 100),
        ("epochs", "1.5", 100),
        ("epochs", "", 100),
        ("epochs", 1.5, 100),
        ("epochs", True, 100),
        ("epochs", [3], 100),
        ("lr", "fast", 0.001),
        ("lr", True, 0.001),
        ("lr", [0.1], 0.001),
        ("refit", "maybe", False),
        ("refit", 2, False),
    ],
)
def test_a_value_of_another_kind_is_refused_by_its_key(key, value, default):
    with pytest.raises(InputError, match=key):
        coerce(key, value, default)


@pytest.mark.parametrize(
    ("value", "default", "expected"),
    [
        ("1", 0.5, 1.0),
        (1, 0.5, 1.0),
        ("1e-3", 0.5, 0.001),
        (7, 3, 7),
        ("-1", 3, -1),
        ("on", False, True),
        ("False", True, False),
        (True, False, True),
        ("mean", "none", "mean"),
    ],
)
def test_a_value_becomes_what_its_default_is(value, default, expected):
    made = coerce("key", value, default)
    assert made == expected
    assert type(made) is type(expected)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"patience": 0}, "patience must be at least 1"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"threads": 0}, "threads must be at least 1"),
        ({"lr": 0.0}, "lr must be above 0"),
        ({"lr": float("nan")}, "lr must be above 0"),
        ({"ema": 1.0}, "ema must be at least 0 and below 1"),
        ({"label_smoothing": -0.1}, "label_smoothing must be at least 0 and below 1"),
        ({"select": "acuracy"}, "did you mean 'accuracy'"),
    ],
)
def test_settings_that_no_training_could_use_are_refused(given, said):
    with pytest.raises(InputError, match=said):
        TrainingSettings(**given)


def test_settings_do_not_change_under_a_run():
    with pytest.raises(FrozenInstanceError):
        TrainingSettings().lr = 1.0


def test_a_key_given_twice_is_refused() -> None:
    with pytest.raises(InputError, match=r"lr is given twice, as 0\.1 and 0\.2"):
        parse_assignments(["lr=0.1", "rank=2", " lr = 0.2 "])


@pytest.mark.parametrize("file", sorted(SHIPPED.glob("*.toml")), ids=lambda f: f.stem)
def test_shipped_settings_are_what_the_named_command_found_and_every_model_takes_them(file):
    settings = read_settings(Path(file.stem))
    assert "mre" in settings.per_model
    assert not settings.common
    for name, given in settings.per_model.items():
        split_settings(given, options_of(name))
    head = file.read_text(encoding="utf-8").split("\n\n")[0]
    assert "test was never predicted" in head
    assert "# moodal tune " in head


def test_a_file_of_the_users_goes_before_shipped_settings_of_the_same_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sdme").write_text("lr = 0.25")
    assert read_settings(Path("sdme")).common == {"lr": 0.25}


@dataclass(frozen=True)
class Step:
    share: float = 0.5
    gap: float | None = None
    names: tuple[str, ...] = ("a", "b")
    cut: str = "shot"
    is_on: bool = True


def test_options_of_a_step_are_read_from_its_table_or_from_the_file_itself(toml):
    both = toml("[screen]\nshare = 0.25\n[balance]\nother = 1\n")
    assert read_options(Step, "screen", both) == Step(share=0.25)
    assert read_options(Step, "screen", both, ["share=0.1", "cut=speech"]) == Step(share=0.1, cut="speech")
    assert read_options(Step, "screen", toml("share = 1\nis_on = false\n")) == Step(share=1.0, is_on=False)


def test_options_may_be_none_or_names_where_they_are_declared_so(toml):
    assert read_options(Step, "screen", None, ["gap=7", "names=x, y"]) == Step(gap=7.0, names=("x", "y"))
    assert read_options(Step, "screen", toml('names = ["x"]\ngap = "none"')) == Step(names=("x",))
    with pytest.raises(InputError, match=r"names needs names like a,b,c, got \[1\]"):
        read_options(Step, "screen", toml("names = [1]"))


def test_what_no_step_of_the_recipe_knows_is_refused(toml, tmp_path):
    with pytest.raises(InputError, match="no setting called 'shares'; did you mean 'share'"):
        read_options(Step, "screen", None, ["shares=1"])
    with pytest.raises(InputError, match=r"no table in .* called 'screens'; did you mean 'screen'"):
        read_options(Step, "screen", toml("[screens]\nshare = 1"))
    with pytest.raises(InputError, match="does not exist; settings are a TOML file"):
        read_options(Step, "screen", tmp_path / "absent.toml")
    with pytest.raises(InputError, match=r"share needs a value like 0\.5, got 'much'"):
        read_options(Step, "screen", None, ["share=much"])
