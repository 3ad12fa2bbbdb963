"""The paper's tables: its numbers as they are printed, ours beside them, and never one taken for the other."""

import csv
import io
import json
import re
import runpy
from dataclasses import replace

import numpy as np
import pytest

from moodal.benchmark import grids
from moodal.benchmark.grids import Grid
from moodal.benchmark.paper import SIMULATED, paper_column, recognised, reproduce, timed
from moodal.benchmark.paper_printing import as_csv, as_json, as_latex, as_markdown, as_text, write_table
from moodal.benchmark.paper_scores import COLLAPSED, protocol_metrics, score_table
from moodal.benchmark.paper_table import MISA_TEXT, MODELS_OF, SELF_MM_CLASSES, TABLES, numbers
from moodal.benchmark.paper_times import timing_table
from moodal.benchmark.results import read_results
from moodal.cli import main
from moodal.config import Settings, TrainingSettings
from moodal.data.simulate import simulate_sdme
from moodal.data.store import read_dataset
from moodal.experiment import Experiment, Run
from moodal.files import read_json, write_json
from moodal.metrics import SENTIMENT, scores
from moodal.models import MODELS
from moodal.types import InputError, Task

FIVE = Task(("neutral", "happy", "sad", "angry", "anxious"))
FEELING = Task(SENTIMENT)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "sdme"
    simulate_sdme(path, clips=200)
    return path


@pytest.fixture
def named(tiny):
    """The tiny data set under another name, with other classes."""

    def make(name, task=FEELING, path=None):
        data = read_dataset(tiny)
        return replace(data, info={**data.info, "name": name}, task=task, path=path or tiny.parent)

    return make


@pytest.fixture(scope="module")
def sims(runs):
    """Table 3 on three models of sentiment, one of which never says positive."""
    folder = runs(FEELING, num=90)
    folder.add("lmf", 0.6)
    folder.add("tfn", outputs=[np.tile([1.0, 0.5, 0.0], (90, 1))] * 3)
    folder.add("mre", 0.9)
    return score_table("table3", read_results(folder.root, ["tfn", "lmf", "mre"]), "sims", resamples=200)


def timed_run(root, name, seed=0, *, per_epoch=0.5, epochs=4, timing=(), **training):
    """A finished run of which only the report and the seconds are there."""
    experiment = Experiment(name, name.partition("@")[0], "made up", "f0", seed, training=TrainingSettings(**training))
    run = Run(root / name / f"seed-{seed}", experiment)
    run.path.mkdir(parents=True)
    write_json(run.report_file, {"epochs": epochs, "best_epoch": 3, "parameters": 1200})
    facts = {"seconds": 9.0, "cpu_seconds": 9.0, "seconds_per_epoch": per_epoch, "workers": 1, "torch": "2.13"}
    write_json(run.path / "timing.json", {**facts, **dict(timing)})
    return run


# What the paper prints


@pytest.mark.parametrize(
    ("table", "model", "column", "accuracy", "f1"),
    [
        ("table3", "tfn", "mosei", [70.35, 0.37], [69.42, 0.64]),
        ("table3", "lmf", "sdme", [65.56, 1.45], [67.64, 2.30]),
        ("table3", "ef_lstm", "sims", [69.37, 0.00], [56.82, 0.00]),
        ("table3", "mfn", "sims", [75.54, 2.02], [75.75, 1.67]),
        ("table3", "graph_mfn", "mosei", [70.25, 1.67], [69.15, 2.36]),
        ("table3", "mult", "sdme", [63.92, 1.45], [66.98, 3.23]),
        ("table3", "misa", "sdme", [49.53, 1.31], [52.33, 1.65]),
        ("table3", "mre", "sims", [81.14, 1.19], [81.09, 1.44]),
        ("table5", "mre_baseline", "sims", [77.72, 1.63], [77.59, 2.13]),
        ("table5", "mre_rs", "sims", [78.95, 0.09], [79.53, 0.26]),
        ("table5", "mre_cnce", "mosei", [71.12, 1.11], [72.10, 0.73]),
    ],
)
def test_the_numbers_are_the_papers(table, model, column, accuracy, f1):
    assert numbers()[table][model][column] == {"accuracy": accuracy, "f1": f1}


def test_every_model_of_a_table_has_its_numbers():
    printed = numbers()
    assert printed.keys() == TABLES.keys() == MODELS_OF.keys()
    assert {m for models in MODELS_OF.values() for m in models} <= MODELS.keys()
    for table, models in MODELS_OF.items():
        assert tuple(printed[table]) == models
        columns = {"mosei"} if table == "table4" else {"mosei", "sims", "sdme"}
        assert all(printed[table][m].keys() == columns for m in models)


def test_with_both_losses_the_ablation_is_the_full_model():
    assert numbers()["table5"]["mre"] == numbers()["table3"]["mre"]


def test_the_papers_ef_lstm_on_sims_never_says_positive():
    y = np.repeat([0, 1, 2], [248, 69, 140])  # SIMS' test split
    never = scores(np.tile([1.0, 0.0, 0.0], (457, 1)), y, FEELING)
    row = numbers()["table3"]["ef_lstm"]["sims"]
    assert [round(100 * never[k], 2) for k in ("acc2_has0", "f1_has0")] == [row["accuracy"][0], row["f1"][0]]


# Whose column


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("mosei", "mosei"),
        ("CMU-MOSEI aligned_50", "mosei"),
        ("SIMS", "sims"),
        ("ch-sims", "sims"),
        ("CHSIMS_unaligned", "sims"),
        ("SDME simulated", "sdme"),
        ("ch-sims v2", None),
        ("mosi", None),
        ("unaligned_39", None),
        ("simsalabim", None),
    ],
)
def test_the_data_set_is_recognised_by_its_name(name, column):
    assert recognised(name) == column


def test_the_column_goes_by_the_name_unless_it_is_said(named, tiny):
    assert paper_column("table3", named("ch-sims"), None) == ("sims", [])
    assert paper_column("table3", named("ch-sims"), "none") == (None, [])
    assert paper_column("table3", named("unaligned_39"), None)[0] is None
    column, (said,) = paper_column("table3", named("unaligned_39"), "sims")
    assert column == "sims"
    assert "said with --paper and not checked" in said
    assert paper_column("table3", named("SDME simulated", FIVE, tiny), None) == ("sdme", [SIMULATED])
    assert paper_column("table4", named("sims"), None) == ("mosei", [])


def test_numbers_of_other_classes_stay_away(named):
    column, (said,) = paper_column("table5", named("sims", FIVE), None)
    assert column is None
    assert "classes negative, neutral, positive, and sims has 5" in said
    with pytest.raises(InputError, match=r"of five classes, and ravdess has 3 .*say --paper none"):
        paper_column("table3", named("ravdess"), "sdme")
    with pytest.raises(InputError, match="timed on MOSEI alone, not on SIMS"):
        paper_column("table4", named("sims"), "sims")
    with pytest.raises(InputError, match="no data set of the paper called 'mosi'; did you mean 'mosei'"):
        paper_column("table3", named("mosi"), "mosi")


# Tables 3 and 5


def test_the_protocol_goes_by_the_task(sims, runs):
    assert protocol_metrics(FEELING) == sims.shown == ("acc2_has0", "f1_has0")
    assert "acc2_has0" in sims.protocol[2]
    assert protocol_metrics(Task(("happy", "neutral", "sad"))) == ("accuracy", "f1_weighted")


def test_ours_and_the_papers_numbers_are_kept_apart(sims):
    (row,) = [r for r in sims.rows if (r.model, r.metric) == ("lmf", "acc2_has0")]
    assert row.num_runs == 3
    assert row.low < row.mean < row.high
    theirs = sims.paper_score("lmf", "acc2_has0")
    assert (theirs.mean, theirs.std) == (0.7926, 0.014)
    header, _, *rows = [line.split("  ") for line in as_text(sims).splitlines()[2:7]]
    assert [x.strip() for x in header if x.strip()] == [
        "model", "accuracy, ours", "[95 %]", "accuracy, paper", "F1, ours", "[95 %]", "F1, paper",
    ]  # fmt: skip
    lmf = [x.strip() for x in rows[1] if x.strip()]
    assert (lmf[0], lmf[3], lmf[6]) == ("LMF", "79.26 ± 1.40", "78.80 ± 1.37")
    assert lmf[1].startswith(f"{100 * row.mean:.1f} ± ")


def test_a_model_that_predicts_one_class_is_flagged(sims):
    assert sims.collapsed == {"tfn": (0, 1, 2)}
    assert "TFN !" in as_text(sims)
    assert any(s.startswith("One class for every test utterance") and "TFN (seed 0, 1, 2)" in s for s in sims.notes)


def test_always_neutral_is_one_class_too_although_two_are_counted(runs):
    folder = runs(FEELING, num=60)
    up_and_down = np.where(np.arange(60)[:, None] % 2, [1.0, 9.0, 0.0], [0.0, 9.0, 1.0])
    folder.add("lmf", outputs=[up_and_down], seeds=(4,))
    made = score_table("table3", read_results(folder.root), None, resamples=50)
    assert made.collapsed == {"lmf": (4,)}


def test_the_note_on_the_collapsed_row_stands_where_it_is_printed(sims, runs):
    assert COLLAPSED in sims.notes
    folder = runs(FEELING)
    folder.add("mre")
    results = read_results(folder.root)
    assert COLLAPSED not in score_table("table3", results, "mosei", resamples=50).notes
    assert COLLAPSED not in score_table("table5", results, "sims", resamples=50).notes


def test_the_one_answer_that_scores_best_is_named(sims, runs):
    assert any(s.startswith("Saying 'not positive' of every utterance reaches 66.7 accuracy") for s in sims.notes)


def test_mre_is_compared_with_each_and_corrected_in_accuracy(sims):
    main = [c for c in sims.paired if c.metric == "acc2_has0"]
    assert [(c.model, c.against) for c in main] == [("mre", "tfn"), ("mre", "lmf")]
    assert all(c.p_holm >= c.p for c in main)
    assert all(c.difference > 0 for c in main)
    assert [c.p_holm for c in sims.paired if c.metric == "f1_has0"] == [None, None]
    means = {r.model: r.mean for r in sims.rows if r.metric == "acc2_has0"}
    assert main[1].difference == pytest.approx(means["mre"] - means["lmf"])


def test_the_ablation_is_variant_minus_full_model(runs):
    folder = runs(FIVE, num=100)
    for name in MODELS_OF["table5"]:
        folder.add(name, 0.6)
    made = score_table("table5", read_results(folder.root, list(MODELS_OF["table5"])), "sdme", resamples=100)
    assert made.shown == ("accuracy", "f1_weighted")
    pairs = [(c.model, c.against) for c in made.paired if c.metric == "accuracy"]
    assert pairs == [("mre_baseline", "mre"), ("mre_rs", "mre"), ("mre_cnce", "mre")]
    assert made.paper_score("mre_rs", "f1_weighted").mean == 0.6832
    assert "over the 3 comparisons in accuracy" in made.protocol[1]


def test_without_mre_there_is_no_difference_and_the_table_says_so(runs):
    folder = runs(FIVE)
    folder.add("lmf", seeds=(0,))
    folder.add("tfn", seeds=(0,))
    made = score_table("table3", read_results(folder.root), None, resamples=50)
    assert made.paired == ()
    assert "MRE is not in the table, so no differences to it were tested." in made.notes
    assert "1 seed per model, so nothing is known of another's" in made.protocol[0]
    assert "paper" not in as_text(made).splitlines()[2]


# Table 4


def test_ratios_are_of_the_means_and_the_papers_are_its_own(tmp_path):
    runs = [
        timed_run(tmp_path, "mult", 0, per_epoch=3.0, epochs=10),
        timed_run(tmp_path, "mult", 1, per_epoch=5.0, epochs=10),
        timed_run(tmp_path, "misa", per_epoch=1.0, epochs=6),
        timed_run(tmp_path, "mre", per_epoch=0.5, epochs=4),
    ]
    made = timing_table("made up", runs, "mosei")
    assert {(r.model, r.metric): r.mean for r in made.rows if r.model == "mult"} == {
        ("mult", "seconds_per_epoch"): 4.0,
        ("mult", "epochs"): 10,
        ("mult", "seconds"): 40.0,
        ("mult", "parameters"): 1200,
    }
    mult, misa = made.ratios
    assert (mult.model, mult.against, mult.seconds_per_epoch, mult.seconds) == ("mult", "mre", 8.0, 20.0)
    assert (misa.seconds_per_epoch, misa.seconds) == (2.0, 3.0)
    assert (round(mult.paper, 1), round(misa.paper, 1)) == (26.5, 9.1)
    assert [p.mean for p in made.paper] == [2535.73, 871.0, 95.79]
    line = next(x for x in as_text(made).splitlines() if x.startswith("MulT"))
    assert line.split()[-4:] == ["8.0", "20.0", "2535.73", "26.5"]


def test_beside_the_papers_misa_stands_what_ours_reads(tmp_path, runs):
    one = [timed_run(tmp_path, "misa")]
    assert MISA_TEXT in timing_table("x", one, "mosei").protocol
    assert MISA_TEXT not in timing_table("x", one, None).protocol
    folder = runs(FEELING)
    folder.add("misa")
    results = read_results(folder.root)
    assert MISA_TEXT in score_table("table3", results, "sims", resamples=50).notes
    assert MISA_TEXT not in score_table("table3", results, None, resamples=50).notes


def test_self_mm_for_classes_is_named_as_ours(runs):
    folder = runs(FEELING)
    folder.add("self_mm")
    results = read_results(folder.root)
    assert SELF_MM_CLASSES in score_table("table3", results, None, resamples=50).notes


def test_training_again_takes_its_own_epochs(tmp_path):
    """Four epochs until valid had chosen the third, then three more on train and valid."""
    made = timing_table("x", [timed_run(tmp_path, "mre", per_epoch=2.0, epochs=4, refit=True)], None)
    assert (made.row("mre", "epochs").mean, made.row("mre", "seconds").mean) == (7, 14.0)


def test_closed_form_is_timed_as_a_whole(tmp_path):
    runs = [timed_run(tmp_path, "lda", per_epoch=0.0, epochs=0), timed_run(tmp_path, "mre")]
    made = timing_table("x", runs, "mosei")
    assert made.row("lda", "seconds_per_epoch") is None
    assert made.row("lda", "seconds").mean == 9.0
    assert made.ratios[0].seconds_per_epoch is None
    assert any("closed form" in s for s in made.notes)
    assert "LDA on the concatenation" in as_text(made)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"timing": {"workers": 2}}, "MRE was trained with up to 2 runs at a time"),
        ({"timing": {"workers": None}}, "MRE: how many runs were trained at the same time was not noted"),
        ({"timing": {"cpu_seconds": 4.5}}, "MRE had the processor for 50 % of the time"),
        ({"threads": 2}, "The runs have different numbers of threads"),
        ({"batch_size": 8}, "The runs have different batch sizes"),
    ],
)
def test_what_spoils_a_comparison_of_seconds_is_said(tmp_path, change, said):
    made = timing_table("x", [timed_run(tmp_path, "mult"), timed_run(tmp_path, "mre", **change)], None)
    assert [s for s in made.notes if s.startswith(said)]
    assert len(made.notes) == 1


def test_seconds_of_runs_alone_need_no_note(tmp_path):
    assert timing_table("x", [timed_run(tmp_path, "mult"), timed_run(tmp_path, "mre")], None).notes == ()


def test_a_timing_run_has_exactly_so_many_epochs():
    given = Settings({"lr": "0.1", "epochs": "9"}, {"mult": {"patience": 3, "heads": 2}})
    assert timed(given, 5) == Settings(
        {"lr": "0.1", "epochs": 5, "patience": 5, "refit": False}, {"mult": {"heads": 2}}
    )


# Files and refusals


def test_what_json_prints(sims):
    said = json.loads(json.dumps(as_json(sims), allow_nan=False))
    assert said.keys() >= {"dataset", "protocol", "rows", "paired", "paper"}
    assert isinstance(said["protocol"], str)
    assert all(r.keys() >= {"model", "metric", "split", "mean", "std", "low", "high", "num_runs"} for r in said["rows"])
    assert {r["split"] for r in said["rows"]} == {"test"}
    assert all(0 <= r["mean"] <= 1 for r in said["rows"] + said["paper"])
    assert said["paired"][0].keys() >= {"model", "against", "metric", "difference", "low", "high", "p", "p_holm"}
    assert said["paper"][0] == {"model": "tfn", "metric": "acc2_has0", "mean": 0.7877, "std": 0.0181}
    assert (said["paper_dataset"], said["constant"]) == ("SIMS", {"tfn": [0, 1, 2]})


def test_a_spreadsheet_says_whose_number_it_is(sims):
    rows = list(csv.DictReader(io.StringIO(as_csv(sims))))
    assert [r["source"] for r in rows] == ["ours"] * 6 + ["paper"] * 6
    assert rows[6]["mean"] == "0.7877"
    assert float(rows[0]["mean"]) == sims.rows[0].mean


def test_markdown_and_latex_mark_their_columns(sims):
    page = as_markdown(replace(sims, command="moodal reproduce table3 data/sims"))
    assert page.startswith("## Table 3 on made up: comparison with other models\n\n```sh\nmoodal reproduce table3")
    assert "| model | accuracy, ours | \\[95 %\\] | accuracy, paper |" in page
    tex = as_latex(sims)
    assert tex.count(r"\begin{table}") == tex.count(r"\end{table}") == 2
    assert "{accuracy, ours} & {[95 \\%]} & {accuracy, paper}" in tex
    assert "paper: SIMS, arXiv 2302.01555" in tex


def test_cells_are_escaped_and_aligned():
    grid = Grid(["name", "n", "why"], [["a_b|c", "1", "x"], ["d", "100", "long"]], words=1)
    assert grids.as_text(grid).splitlines() == [
        "name     n  why",
        "────────────────",
        *["a_b|c    1  x", "d      100  long"],
    ]
    assert grids.as_markdown(grid).splitlines()[1:3] == ["| --- | --: | --- |", "| a\\_b\\|c | 1 | x |"]
    assert r"{a\_b|c} & {1} & {x} \\" in grids.as_latex(grid, "50 %")


def test_files_stand_beside_the_runs(sims, tmp_path):
    assert [f.name for f in write_table(sims, tmp_path)] == [f"table3.{e}" for e in ("md", "tex", "csv", "json")]
    assert read_json(tmp_path / "table3.json") == as_json(sims)


def test_one_command_puts_the_tables_of_all_runs_on_a_page(sims, tmp_path, root):
    write_table(sims, tmp_path)
    write_table(replace(sims, table="table5", dataset="other"), tmp_path)
    tables = runpy.run_path(str(root / "docs" / "tables.py"))
    page = tables["page"]([tmp_path])
    assert re.findall(r"^##? (.+)$", page, re.M) == [
        "The paper's tables, made again",
        "Table 3 on made up: comparison with other models",
        "Table 5 on other: ablation of the two losses",
    ]
    with pytest.raises(SystemExit, match=r"no table in .*nowhere; run moodal reproduce first"):
        tables["page"]([tmp_path, tmp_path / "nowhere"])


@pytest.mark.parametrize(
    ("table", "options", "message"),
    [
        ("table6", {}, "no table called 'table6'.*There are: table3, table4, table5"),
        ("table3", {"epochs": 3}, "--epochs is for table4; for table3 say --set epochs=3"),
        ("table4", {"workers": 2}, "table4 trains one run at a time.*leave --workers out"),
        ("table3", {"paper": "iemocap"}, "There are: mosei, none, sdme, sims"),
    ],
)
def test_refusals_before_anything_is_trained(tiny, tmp_path, table, options, message):
    with pytest.raises(InputError, match=message):
        reproduce(table, tiny, tmp_path / "runs", **options)
    assert not list(tmp_path.iterdir())


# As a user types it


@pytest.fixture
def typed(monkeypatch, tmp_path, capsys):
    """The command line within this process, which saves it from loading everything again: code, stdout, stderr."""

    def run(*argv):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("sys.argv", ["moodal", *map(str, argv)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, *capsys.readouterr()

    return run


def test_tables_3_and_5_share_their_runs(moodal, typed, tiny, tmp_path):
    small = ["--seeds", "1", "--workers", "1", "--set", "text_pooling=mean", "--set", "epochs=1"]
    three = moodal("reproduce", "table3", tiny, *small, "--models", "lmf,mre,mre_rs", "--json", cwd=tmp_path)
    assert (three.returncode, three.stderr) == (0, "")
    said = json.loads(three.stdout)
    assert [r["model"] for r in said["rows"]] == ["lmf", "lmf", "mre", "mre", "mre_rs", "mre_rs"]
    assert said["notes"][0] == SIMULATED
    before = (tmp_path / "runs" / "mre" / "seed-0" / "timing.json").read_bytes()
    assert json.loads(before)["workers"] == 1
    code, out, err = typed("reproduce", "table5", tiny, *small, "--models", "mre_rs,mre")
    assert (code, err) == (0, "")
    assert out.startswith("Table 5, ablation of the two losses; ours: SDME simulated; paper: SDME")
    assert out.endswith("written: runs/table5.md, .tex, .csv, .json\n")
    assert (tmp_path / "runs" / "mre" / "seed-0" / "timing.json").read_bytes() == before
    assert "moodal reproduce table5" in (tmp_path / "runs" / "table5.md").read_text()


def test_table_4_times_each_model_in_its_own_folder(typed, tiny, tmp_path):
    options = ["--models", "lmf,mre", "--seeds", "1", "--epochs", "2", "--set", "w_rs=0.5"]  # LMF has no w_rs
    code, out, err = typed("reproduce", "table4", tiny, *options, "--json")
    assert (code, err) == (0, "")
    said = json.loads(out)
    assert {(r["model"], r["mean"]) for r in said["rows"] if r["metric"] == "epochs"} == {("lmf", 2.0), ("mre", 2.0)}
    assert "these runs are no result" in said["protocol"]
    assert [r["model"] for r in said["ratios"]] == ["lmf"]
    assert (tmp_path / "runs-timing" / "table4.tex").exists()


def test_an_unknown_table_ends_with_2(typed, tiny, tmp_path):
    code, out, err = typed("reproduce", "table7", tiny)
    assert (code, out) == (2, "")
    assert re.fullmatch(r"moodal: no table called 'table7'.* There are: table3, table4, table5\n", err)
    assert not list(tmp_path.iterdir())
