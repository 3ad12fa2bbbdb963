import csv
import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest

from moodal import metrics
from moodal.benchmark.printing import (
    EMITTERS,
    GAP,
    as_csv,
    as_json,
    as_latex,
    as_markdown,
    as_text,
    latex_text,
    printed_columns,
    printed_lines,
)
from moodal.benchmark.results import read_results
from moodal.benchmark.tables import compare_results
from moodal.types import Task

SENTIMENT = Task(metrics.SENTIMENT)
SIMS = Task(low=-1, high=1)
LIMITS = {"bayes": {"accuracy": 0.9}, "best_single": {"accuracy": 0.5, "modality": "vision"}}


def compare(folder):
    return compare_results(read_results(folder.root), resamples=100)


@pytest.fixture(scope="module")
def simulated(runs):
    """Limits are known; two of the models have relevance."""
    folder = runs(limits=LIMITS)
    folder.add("mre", 0.7, relevance=True)
    folder.add("mre_rs", 0.65, relevance=True)
    folder.add("lda", 0.1)
    return compare(folder)


def cells_below(header, table):
    """First cell and the cell that ends where ``header`` ends, of each line of an aligned table."""
    end = table[0].index(header) + len(header)
    return {re.split(r"\s{2,}", line)[0]: line[:end].split()[-1] for line in table[1:] if not line.startswith("─")}


# What stands in a table.


def test_the_best_constant_answer_is_a_row_of_the_table(runs):
    folder = runs(num=61)
    folder.add("mre")
    most = np.bincount(folder.y).max() / 61

    (line,) = [x for x in printed_lines(compare(folder)) if x.part == "limit"]

    assert line.title == "always 'neutral'"
    assert line.cells[0].text == f"{100 * most:.1f}"


def test_one_seed_has_no_spread(runs):
    folder = runs()
    folder.add("mre", seeds=(0,))

    assert "±" not in as_text(compare(folder)).split("\n\n")[1]


def test_a_model_that_gives_one_answer_in_any_seed_is_flagged_everywhere(runs):
    folder = runs()
    always_sad = np.tile([0.0, 0.0, 1.0], (60, 1))
    folder.add("mre", seeds=(0, 1), outputs=[folder.outputs(0.8), always_sad])
    folder.add("lda")

    comparison = compare(folder)

    assert as_json(comparison)["constant"] == {"mre": [1]}
    assert "MRE !" in as_text(comparison)
    assert "MRE †" in as_markdown(comparison)
    assert r"MRE $\dagger$" in as_latex(comparison)


# The share of the gap.


def test_where_limits_are_known_the_last_column_is_the_share_of_the_gap(simulated):
    shares = {line.title: line.cells[-1] for line in printed_lines(simulated)}

    assert printed_columns(simulated) == (*simulated.shown, GAP)
    assert {len(line.cells) for line in printed_lines(simulated)} == {len(simulated.shown) + 1}
    for name, title in simulated.titles.items():
        assert shares[title].text == f"{100 * simulated.share_of_gap[name]:.0f}".replace("-", "−")
    assert shares["LDA on the concatenation"].text.startswith("−")
    assert (shares["best possible, vision alone"].text, shares["best possible"].text) == ("0", "100")
    assert [title for title, cell in shares.items() if cell.best] == ["MRE"]


def test_the_share_of_the_gap_stands_in_every_table_for_people_with_its_meaning_below(simulated):
    share = f"{100 * simulated.share_of_gap['mre']:.0f}"
    meaning = "Of the gap: percent of the way from the best that any one modality allows (vision, 50.0 % accuracy) to "
    meaning += "the best possible answer (90.0 %); negative: below what vision alone allows"

    text = as_text(simulated).split("\n\n")
    assert cells_below("of the gap", text[1].split("\n"))["MRE"] == share
    assert meaning in text[2].split("\n")

    markdown = as_markdown(simulated)
    assert "| nll | of the gap |\n" in markdown
    assert re.search(rf"^\| MRE \|.*\| \*\*{share}\*\* \|$", markdown, re.MULTILINE)
    assert f"\n\n{meaning}.\n\n" in markdown

    latex = as_latex(simulated)
    assert r"& nll & of the gap \\" in latex
    (row,) = [line for line in latex.split("\n") if line.startswith("MRE &")]
    assert row.endswith(rf"& \textbf{{{share}}} \\")
    assert latex_text(f"{meaning}.") in latex


@pytest.mark.parametrize("limits", [None, {**LIMITS, "bayes": {"accuracy": 0.5}}], ids=["no limits", "no gap"])
def test_without_a_gap_there_is_no_such_column(runs, limits):
    folder = runs(limits=limits)
    folder.add("mre")
    comparison = compare(folder)

    assert printed_columns(comparison) == comparison.shown
    assert all(GAP not in emit(comparison).lower() for emit in EMITTERS.values())


# Relevance.


def test_mean_relevance_stands_in_a_table_of_its_own(simulated):
    assert simulated.relevance.keys() == {"mre", "mre_rs"}
    shares = {"mre": {"text": 0.5049, "audio": 0.2, "vision": 0.2951}, "mre_rs": {"text": 0.0, "vision": 1.0}}
    comparison = replace(simulated, relevance=shares)

    text = next(b for b in as_text(comparison).split("\n\n") if b.startswith("relevance on test"))
    assert text.split("\n") == [
        "relevance on test  text  audio  vision",
        "─" * 38,
        "MRE                0.50   0.20    0.30",
        "MRE, L_rs only     0.00           1.00",
    ]
    markdown = next(b for b in as_markdown(comparison).split("\n\n") if b.startswith("| relevance"))
    assert markdown.split("\n") == [
        "| relevance on test | text | audio | vision |",
        "|---|--:|--:|--:|",
        "| MRE | 0.50 | 0.20 | 0.30 |",
        r"| MRE, L\_rs only | 0.00 |  | 1.00 |",
    ]
    for emit in (as_text, as_markdown):
        assert "how much a model says each modality should count, not how right that modality is." in emit(comparison)


def test_without_relevance_nothing_is_said_of_it(runs):
    folder = runs()
    folder.add("lda")
    comparison = compare(folder)

    assert "relevance" not in as_text(comparison) + as_markdown(comparison)


# Formats.


def test_the_json_of_a_constant_score_has_no_nan(runs):
    folder = runs(SIMS)
    folder.add("mre", seeds=(0,), outputs=[np.full((60, 1), 0.1)])

    assert json.dumps(as_json(compare(folder)), allow_nan=False)


def test_the_json_keeps_its_contract(runs):
    folder = runs(notes=["Simulated."])
    folder.add("mre", relevance=True)
    folder.add("lda")

    found = json.loads(json.dumps(as_json(compare(folder)), allow_nan=False))

    assert {"dataset", "protocol", "rows", "paired"} <= found.keys()
    assert found["dataset"] == "made up"
    for row in found["rows"]:
        assert {"model", "metric", "split", "mean", "std", "low", "high", "num_runs"} <= row.keys()
        assert row["metric"] in metrics.DESCRIPTIONS
    for row in found["paired"]:
        assert {"model", "against", "metric", "difference", "low", "high", "p", "p_holm"} <= row.keys()
    accuracy = next(r for r in found["rows"] if (r["model"], r["metric"], r["split"]) == ("mre", "accuracy", "test"))
    assert 0 < accuracy["low"] < accuracy["mean"] < accuracy["high"] < 1
    assert found["notes"] == ["Simulated."]


def test_the_csv_holds_the_numbers_of_the_json_unrounded(runs):
    folder = runs()
    folder.add("mre")
    comparison = compare(folder)

    rows = list(csv.DictReader(io.StringIO(as_csv(comparison))))

    assert [float(r["mean"]) for r in rows] == [r["mean"] for r in as_json(comparison)["rows"]]
    assert {r["low"] for r in rows if r["split"] == "valid"} == {""}


def test_the_columns_of_the_text_stand_below_each_other(runs):
    folder = runs()
    for name, right in (("mre", 0.6), ("lda", 1.0), ("audio_only", 0.34)):
        folder.add(name, right)

    table = as_text(compare(folder)).split("\n\n")[1].split("\n")

    column = table[0].index("[95 %]") + len("[95 %]")
    for line in (x for x in table[2:] if "±" in x):
        assert line[column - 1] == "]"
        assert re.match(r"\S.*  100\.0 ± 0\.0\*|\S.*  \d\d\.\d ± \d+\.\d ", line)


def test_the_best_of_each_column_is_marked_and_what_looks_equal_is_marked_alike(runs):
    folder = runs()
    folder.add("mre", 0.6)
    folder.add("lda", 1.0)
    folder.add("text_only", 1.0)

    best = {line.title: [c.best for c in line.cells][:2] for line in printed_lines(compare(folder))}

    assert best["MRE"] == [False, False]
    assert best["LDA on the concatenation"] == best["text only"] == [True, True]


def test_tables_for_papers_are_escaped(runs):
    folder = runs(Task(("a|b_&%", "c#$", "d")))
    folder.y[0] = 0
    folder.add("mre")
    comparison = compare(folder)

    assert r"a\|b\_&%" in as_markdown(comparison)
    assert r"a|b\_\&\%" in as_latex(comparison)
    assert latex_text("\\{~^<±") == r"\textbackslash{}\{\textasciitilde{}\textasciicircum{}\textless{}$\pm$"


def test_a_latex_table_has_as_many_cells_in_every_row(runs):
    folder = runs(SENTIMENT)
    folder.add("mre")
    folder.add("lda")
    text = as_latex(compare(folder))

    body = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
    rows = [line for line in body.split("\n") if line.endswith(r"\\")]
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {5}
    assert text.count("{") == text.count("}")


def test_every_format_has_its_emitter(runs):
    folder = runs()
    folder.add("mre")
    comparison = compare(folder)

    assert {name: bool(emit(comparison)) for name, emit in EMITTERS.items()} == dict.fromkeys(
        ("text", "markdown", "latex", "csv"), True
    )
