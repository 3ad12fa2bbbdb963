import itertools
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from matplotlib.colors import to_hex

from moodal.benchmark.figures import CANDIDATE, CONTROL, draw_figures, draw_forest, draw_training, write_figures
from moodal.benchmark.results import read_results
from moodal.benchmark.tables import compare_results
from moodal.models import MODELS
from moodal.types import Task

MOSI = Task(low=-3, high=3)


def read(folder):
    results = read_results(folder.root)
    return results, compare_results(results, resamples=50)


def pictures(folder):
    return {p.name: p for p in draw_figures(*read(folder))}


def texts(axis):
    return [t.get_text() for t in axis.get_ticklabels()]


def test_every_picture_is_saved_as_png_and_svg(runs, tmp_path):
    folder = runs()
    folder.add("mre", relevance=True)
    folder.add("lda")

    files = write_figures(*read(folder), tmp_path / "figures")

    names = {"forest", "relevance", "confusion", "calibration", "training"}
    assert {f.name for f in files} == {f"{n}.{kind}" for n in names for kind in ("png", "svg")}
    assert sorted(files) == sorted((tmp_path / "figures").iterdir())  # nothing half written is left
    for file in files:
        if file.suffix == ".png":
            assert file.read_bytes().startswith(b"\x89PNG")
        else:
            assert ET.parse(file).getroot().tag.endswith("svg")  # noqa: S314 (our own file)


def test_the_same_runs_give_the_same_bytes(runs, tmp_path):
    folder = runs()
    folder.add("mre")

    first, second = (write_figures(*read(folder), tmp_path / name) for name in ("a", "b"))

    assert [f.read_bytes() for f in first] == [f.read_bytes() for f in second]


def test_what_has_no_data_is_not_drawn(runs):
    folder = runs()
    folder.add("lda", history=[])

    assert pictures(folder).keys() == {"forest", "confusion", "calibration"}


def test_scores_are_drawn_against_scores(runs):
    folder = runs(MOSI)
    folder.add("mre", training={"select": "loss"})
    folder.add("lda", history=[])

    assert pictures(folder).keys() == {"forest", "scores", "training"}


def test_the_forest_has_the_best_model_on_top_and_candidates_in_colour(runs):
    folder = runs(num=150)
    folder.add("mre", 0.6)
    folder.add("lda", 0.9)
    folder.add("text_only", 0.4)

    ax = pictures(folder)["forest"].figure.axes[0]

    assert texts(ax.yaxis) == ["LDA on the concatenation", "MRE", "text only"]
    points = [line for line in ax.lines if line.get_marker() == "o"]
    assert [to_hex(p.get_color()).upper() for p in points] == [CONTROL, CANDIDATE, CONTROL]
    assert ax.yaxis_inverted()


def test_the_forest_of_errors_has_the_smallest_on_top(runs):
    folder = runs(MOSI)
    folder.add("mre", 0.2)
    folder.add("lda", 0.9)

    assert texts(pictures(folder)["forest"].figure.axes[0].yaxis)[0] == "LDA on the concatenation"


def test_the_limits_are_lines_of_the_forest(runs):
    limits = {"bayes": {"accuracy": 0.9}, "best_single": {"accuracy": 0.7, "modality": "vision"}}
    folder = runs(limits=limits)
    folder.add("mre")

    (legend,) = draw_forest(*read(folder)).figure.legends

    said = {t.get_text() for t in legend.get_texts()}
    assert {"candidate", "best possible: 90.0", "best possible, vision alone: 70.0", "always 'neutral': 33.3"} <= said


def shown_ticks(axis):
    low, high = sorted(axis.get_view_interval())
    return [t for t, at in zip(axis.get_ticklabels(), axis.get_ticklocs(), strict=True) if low <= at <= high]


@pytest.mark.parametrize("picture", ["forest", "relevance", "confusion", "training"])
def test_no_two_labels_overlap_with_every_model_of_the_zoo(runs, picture):
    folder = runs()
    for i, name in enumerate([*MODELS, "mre@rank=8"]):
        folder.add(name, 0.4 + 0.01 * i, seeds=(0, 1), relevance=name.startswith("mre"))

    figure = pictures(folder)[picture].figure
    figure.canvas.draw()

    renderer = figure.canvas.get_renderer()
    for ax in figure.axes:
        labels = [*ax.texts, ax.title, ax._left_title, ax.xaxis.label, ax.yaxis.label]
        labels += [*shown_ticks(ax.yaxis), *(t for t in shown_ticks(ax.xaxis) if not t.get_rotation())]
        boxes = [(t.get_text(), t.get_window_extent(renderer)) for t in labels if t.get_text() and t.get_visible()]
        for (a, first), (b, second) in itertools.combinations(boxes, 2):
            assert not first.padded(-1).overlaps(second), f"{a!r} and {b!r} overlap"
        for text, box in boxes:
            assert box.x0 >= -1, f"{text!r} is cut off"
            assert box.x1 <= figure.bbox.x1 + 1, f"{text!r} is cut off"


def test_the_confusion_counts_the_utterances_of_each_true_class(runs):
    folder = runs()
    folder.add("mre", 1.0)

    (ax,) = pictures(folder)["confusion"].figure.axes

    shown = {t.get_text() for t in ax.texts}
    assert shown == {"100 %", "20"}
    assert texts(ax.yaxis) == ["neutral\n(20)", "happy\n(20)", "sad\n(20)"]


def test_losses_are_drawn_as_losses_and_the_mean_ends_with_the_shortest_run(runs):
    """Training maximises, so history holds minus the loss; seed s of the made-up runs has 3 + s epochs."""
    folder = runs()
    folder.add("mre", seeds=(0, 1))

    (ax,) = draw_training(*read(folder)).figure.axes

    *single, mean = ax.lines
    assert [len(line.get_ydata()) for line in single] == [3, 4]
    np.testing.assert_allclose(mean.get_ydata(), [1, 1 / 2, 1 / 3])
    assert ax.get_ylabel() == "nll on valid (lower is better)"
    assert mean.get_markevery() == [2]


def test_a_dollar_in_a_name_is_no_formula(runs, tmp_path):
    folder = runs(Task((r"$\frac$", "b$", "c")))
    folder.add("mre")
    folder.add("lda")

    write_figures(*read(folder), tmp_path)


def test_every_picture_says_in_words_what_it_shows(runs):
    folder = runs()
    folder.add("mre", relevance=True)
    folder.add("lda")

    captions = {name: p.caption for name, p in pictures(folder).items()}

    assert all(c.endswith(".") for c in captions.values())
    assert "MRE: text 0." in captions["relevance"]
    assert "LDA on the concatenation" in captions["calibration"]
