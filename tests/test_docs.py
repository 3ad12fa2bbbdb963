"""What the pages say is true: generated parts are fresh, commands exist, examples run, links lead somewhere."""

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from moodal.cli import app
from moodal.data.simulate import simulate_sdme
from moodal.data.store import read_dataset
from moodal.models import MODELS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
COMMANDS = typer.main.get_command(app).commands
ELSEWHERE = ("import polars", "import duckdb", "../shared/", "aligned_50.pkl")  # not installed, or not here


def blocks(page: Path, *languages: str) -> list[tuple[str, str]]:
    """Language and text of the fenced examples of a page, in order."""
    return [(lang, text) for lang, text in FENCE.findall(page.read_text(encoding="utf-8")) if lang in languages]


def shell_lines(page: Path) -> list[list[str]]:
    text = "".join(text for _, text in blocks(page, "sh")).replace("\\\n", " ")
    return [words for line in text.splitlines() if (words := shlex.split(line, comments=True))]


SHELL = [(page.name, words) for page in PAGES for words in shell_lines(page)]
MOODAL = [(name, words[1:]) for name, words in SHELL if words[0].endswith("moodal")]


@pytest.fixture(scope="module")
def generate():
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_parts_are_fresh(generate):
    for page, text in generate.pages().items():
        assert page.read_text(encoding="utf-8") == text, f"{page.name} is out of date; run: make docs"


def test_every_command_has_its_section(generate):
    assert re.findall(r"^## (.+)$", generate.commands(), re.MULTILINE) == list(COMMANDS)


@pytest.mark.parametrize(("page", "words"), MOODAL, ids=lambda x: x if isinstance(x, str) else " ".join(x))
def test_commands_on_the_pages_exist_with_their_options(page, words):
    known = {o for p in typer.main.get_command(app).params for o in p.opts} | {"--help"}
    if words[0] not in known:
        assert words[0] in COMMANDS
        known = {o for p in COMMANDS[words[0]].params for o in p.opts} | {"--help"}
    assert {w for w in words if w.startswith("--")} <= known
    for option in ("--model", "--models"):
        if option in words and words[0] != "predict":  # which takes folders
            names = words[words.index(option) + 1].split(",")
            assert {n.partition("@")[0] for n in names} <= MODELS.keys()


def test_targets_on_the_pages_are_in_the_makefile():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([\w.]+):", makefile, re.MULTILINE))
    asked = {words[1] for _, words in SHELL if words[0] == "make"}
    assert asked
    assert asked <= targets


def test_links_between_files_lead_somewhere():
    for page in PAGES:
        text = COMMENT.sub("", FENCE.sub("", page.read_text(encoding="utf-8")))
        for target in re.findall(r"\]\(([^)#\s]+)", text):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_site_builds_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path / "site"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not [p.name for p in (tmp_path / "site").rglob("*.py")]


def test_the_site_loads_nothing_from_elsewhere(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", tmp_path / "site"]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    for page in (tmp_path / "site").rglob("*.html"):
        loaded = re.findall(r"<(?:script|link|img)[^>]*(?:src|href)=\"(?:https?:)?//([^\"]+)", page.read_text("utf-8"))
        assert not loaded, page.name


@pytest.fixture
def desk(tmp_path):
    """A working folder with the simulated data set that the pages use."""
    simulate_sdme(tmp_path / "data" / "sdme", clips=200)
    return tmp_path


def python(code: str, folder: Path) -> str:
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{code}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("page", ["python.md", "dataset-folder.md", "add-a-model.md", "add-a-data-set.md"])
def test_python_examples_run(page, desk):
    code = [text for _, text in blocks(DOCS / page, "python") if not any(e in text for e in ELSEWHERE)]
    assert code
    python("\n".join(code), desk)


def test_the_example_of_own_data_leads_to_a_report(desk, moodal):
    for language, text in blocks(DOCS / "own-data.md", "python", "sh"):
        if any(e in text for e in ELSEWHERE):
            continue
        if language == "python":
            python(text, desk)
            continue
        for line in text.splitlines():
            done = moodal(*shlex.split(line)[1:], cwd=desk)
            assert done.returncode == 0, f"{line}\n{done.stderr}"
    assert (desk / "runs-clips" / "report" / "report.html").exists()
    assert read_dataset(desk / "data" / "corpus").num_folds == 5


def test_pandas_reads_what_we_wrote(desk):
    """As the page says, and the same numbers."""
    pandas = pytest.importorskip("pandas")
    import numpy as np

    data = read_dataset(desk / "data" / "sdme")
    audio = pandas.read_parquet(desk / "data/sdme/features/audio/part-0.parquet").set_index("id")["features"]
    utterances = pandas.read_parquet(desk / "data/sdme/utterances.parquet")
    assert utterances.id.tolist() == [u.id for u in data.utterances]
    clips = [np.stack(audio[name]) for name in utterances.id]
    assert np.array_equal(np.concatenate(clips), data.batch.inputs["audio"].values.numpy())
    assert [len(c) for c in clips] == data.batch.inputs["audio"].lengths.tolist()
