import base64
import json
import shlex
from html.parser import HTMLParser

import pytest

from moodal.benchmark.printing import as_csv, as_json, as_latex, as_markdown, as_text, gap_notes
from moodal.benchmark.report import reproduce_command, write_report
from moodal.benchmark.results import read_results
from moodal.benchmark.tables import compare_results
from moodal.types import Task

VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Tags with their attributes, text by the tag around it, and whether tags are closed in order."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.open, self.text = [], [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append((self.open[-1] if self.open else "", data))

    def texts(self, tag):
        return [data for around, data in self.text if around == tag]


def report(folder, out):
    results = read_results(folder.root)
    comparison = compare_results(results, resamples=50)
    return comparison, write_report(results, comparison, out)


@pytest.fixture(scope="module")
def folder(runs):
    limits = {"bayes": {"accuracy": 0.95}, "best_single": {"accuracy": 0.6, "modality": "vision"}}
    made = runs(limits=limits, notes=["Simulated: no person was recorded."])
    made.add("mre", 0.5, relevance=True)
    made.add("lda", 0.9)
    return made


@pytest.fixture(scope="module")
def written(folder, tmp_path_factory):
    """The comparison, the files and their folder."""
    out = tmp_path_factory.mktemp("out") / "a" / "report"
    return *report(folder, out), out


@pytest.fixture(scope="module")
def page(written):
    return Page((written[2] / "report.html").read_text(encoding="utf-8"))


def test_all_files_are_written_and_named(written):
    _, files, out = written

    there = {f.relative_to(out).as_posix() for f in files}
    pictures = ("forest", "relevance", "confusion", "calibration", "training")
    assert there == {
        *("table.txt", "table.md", "table.tex", "table.csv", "comparison.json", "report.html"),
        *(f"figures/{n}.{kind}" for n in pictures for kind in ("png", "svg")),
    }
    assert set(files) == {f for f in out.rglob("*") if f.is_file()}


def test_the_files_hold_what_the_emitters_say(written):
    comparison, _, out = written

    for name, emit in (("txt", as_text), ("md", as_markdown), ("tex", as_latex), ("csv", as_csv)):
        assert (out / f"table.{name}").read_text(encoding="utf-8") == emit(comparison)
    assert json.loads((out / "comparison.json").read_text()) == json.loads(json.dumps(as_json(comparison)))


def test_the_page_needs_nothing_from_outside_and_forbids_it(page):
    policy = [a["content"] for t, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    assert not {"script", "link", "iframe", "object", "form", "a"} & {t for t, _ in page.tags}
    images = [a for t, a in page.tags if t == "img"]
    assert len(images) == 5
    for image in images:
        kind, _, data = image["src"].partition(";base64,")
        assert kind == "data:image/svg+xml"
        assert base64.b64decode(data, validate=True).startswith(b"<?xml")
        assert len(image["alt"]) > 30
    assert not any(k.startswith("on") or k == "style" for _, a in page.tags for k in a)
    assert page.open == []


def test_the_page_opens_with_the_verdict(written, page):
    comparison = written[0]
    assert page.texts("p")[0] == comparison.verdict[0]
    assert comparison.verdict[0].startswith("The control LDA on the concatenation is ahead of MRE")


def test_the_page_states_protocol_notes_intended_use_and_what_relevance_is_not(written, page):
    comparison = written[0]
    assert page.texts("li") == [*comparison.protocol, "Simulated: no person was recorded."]
    said = " ".join(page.texts("p"))
    assert "It is not evidence that a modality is right" in said
    assert "Not for inferring the emotions of people at work or in education" in said


def test_the_page_has_the_share_of_the_gap_and_says_what_it_is(written, page):
    comparison = written[0]
    (meaning,) = gap_notes(comparison)

    assert "of the gap" in page.texts("th")
    assert f"{meaning}." in page.texts("p")
    shares = [f"{100 * s:.0f}".replace("-", "−") for s in comparison.share_of_gap.values()]
    assert set(shares) <= set(page.texts("td"))


def test_the_page_has_mean_relevance_in_numbers(written, page):
    shares = [f"{v:.2f}" for v in written[0].relevance["mre"].values()]
    cells = page.texts("td")

    header = page.texts("th").index("relevance on test")
    assert page.texts("th")[header + 1 : header + 4] == ["text", "audio", "vision"]
    assert any(cells[i : i + 4] == ["MRE", *shares] for i in range(len(cells)))


def test_names_from_a_data_set_cannot_become_markup(runs, tmp_path, edit):
    evil = "<script>alert('x')</script>&\"$title"
    folder = runs(Task((evil, "b", "c")), notes=[evil])
    edit(folder.root / "benchmark.json", name=evil, path=evil)
    folder.add("mre", relevance=True)
    folder.add("lda")

    report(folder, tmp_path)

    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert "<script" not in text
    assert evil in page.texts("li")
    assert any(evil in x for x in page.texts("h1"))
    assert page.open == []


def test_a_second_report_replaces_the_first(runs, tmp_path):
    folder = runs()
    folder.add("mre")
    report(folder, tmp_path)
    folder.add("lf_dnn")
    report(folder, tmp_path)

    assert "LF-DNN" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not list(tmp_path.rglob(".*partial*"))


def test_a_regression_has_its_report(runs, tmp_path):
    folder = runs(Task(low=-1, high=1))
    folder.add("mre", training={"select": "loss"}, relevance=True)
    folder.add("lda")

    _, files = report(folder, tmp_path)

    assert (tmp_path / "figures" / "scores.svg") in files
    assert "mae" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_one_model_has_its_report(runs, tmp_path):
    folder = runs()
    folder.add("mre", seeds=(0,))

    comparison, _ = report(folder, tmp_path)

    assert "No control was run" in comparison.verdict[0]


# How to do it again.


def test_default_settings_need_one_command(folder):
    command = reproduce_command(read_results(folder.root))

    expected = ["moodal", "compare", "data/made up", "--models", "mre,lda", "--seeds", "3", "--out", str(folder.root)]
    assert shlex.split(command) == expected


def test_settings_are_given_again(runs):
    folder = runs()
    folder.add("mre", training={"lr": 0.5})
    folder.add("lmf", training={"lr": 0.5})

    assert "--models mre,lmf --seeds 3 --set lr=0.5 --out" in reproduce_command(read_results(folder.root))


def test_settings_in_a_name_are_not_given_twice(runs):
    folder = runs()
    folder.add("mre")
    folder.add("mre@rank=8", options={"rank": 8})

    assert "--models mre,mre@rank=8 --seeds 3 --out" in reproduce_command(read_results(folder.root))


def test_the_refit_that_folds_bring_is_not_given(runs):
    folder = runs(folds=2)
    folder.add("mre", training={"refit": True})
    assert "--set" not in reproduce_command(read_results(folder.root))

    fixed = runs()
    fixed.add("mre", training={"refit": True})
    assert "--set refit=True" in reproduce_command(read_results(fixed.root))


def test_models_with_settings_of_their_own_get_a_command_each(runs):
    folder = runs()
    folder.add("mre", training={"lr": 0.5})
    folder.add("lmf", seeds=(0,))

    lines = reproduce_command(read_results(folder.root)).split("\n")

    assert lines[0].startswith("moodal train 'data/made up' --model mre --seeds 3 --set lr=0.5 --out ")
    assert lines[1].startswith("moodal train 'data/made up' --model lmf --seeds 1 --out ")
    assert lines[2] == f"moodal report {shlex.quote(str(folder.root))}"


def test_a_regression_is_asked_for_again(runs):
    folder = runs(Task(low=-3, high=3))
    folder.add("mre")

    assert " --task regression --out " in reproduce_command(read_results(folder.root))
