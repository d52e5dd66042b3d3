"""Figures of held-out texts: right values, nothing made up for labels that are too rare."""

import json

import numpy as np
import pytest

from stages.classifier import figures

LABELS = ("civil", "rude", "toxic")


def probabilities(given, labels=LABELS, sure=0.8):
    rest = (1 - sure) / (len(labels) - 1)
    return np.array([[sure if label == n else rest for n in range(len(labels))] for label in given])


def test_figures_of_a_worked_example():
    truth, given = [0, 0, 0, 0, 1, 1, 2, 2], [0, 0, 0, 1, 1, 0, 2, 2]
    measured = figures.measure(LABELS, truth, probabilities(given), 0)
    assert measured.accuracy.value == 6 / 8
    assert measured.accuracy.low == pytest.approx(0.409, abs=1e-3)  # Wilson's, of 6 in 8
    assert measured.accuracy.high == pytest.approx(0.929, abs=1e-3)
    assert measured.majority_accuracy == 0.5
    for name in ("precision", "recall", "f1"):
        assert measured.by_label[name] == pytest.approx({"civil": 0.75, "rude": 0.5, "toxic": 1})
    assert measured.macro["f1"] == pytest.approx(0.75)
    # Of rude: two texts share the highest score, one of them rightly; at the lower all come in.
    assert measured.by_label["average_precision"]["rude"] == pytest.approx(0.5 * 0.5 + 0.5 * 2 / 8)
    assert measured.confusion.tolist() == [[3, 1, 0], [1, 1, 0], [0, 0, 2]]
    assert measured.counts == {"civil": 4, "rude": 2, "toxic": 2}
    assert measured.undefined == []


def test_what_is_not_defined_is_left_out_and_said():
    measured = figures.measure(LABELS, [0, 0, 1], probabilities([0, 0, 0]), 1)
    assert measured.by_label["precision"] == pytest.approx({"civil": 2 / 3})
    assert measured.by_label["recall"] == {"civil": 1.0, "rude": 0.0}
    assert measured.by_label["f1"] == pytest.approx({"civil": 0.8, "rude": 0.0})
    assert measured.by_label["average_precision"].keys() == {"civil", "rude"}
    assert measured.macro["precision"] == pytest.approx(2 / 3)
    assert measured.macro["f1"] == pytest.approx(0.4)
    assert measured.undefined == [
        "no text has the label 'toxic': no recall, F1 and average precision of it",
        "no text is given the label 'rude', 'toxic': no precision of it",
    ]
    names = figures.flat(measured)
    assert not {"precision_rude", "precision_toxic", "recall_toxic", "f1_toxic"} & names.keys()
    assert names["recall_rude"] == 0.0


def test_a_label_that_is_given_but_that_no_text_has_is_no_part_of_the_means():
    measured = figures.measure(LABELS, [0, 0, 1], probabilities([0, 2, 1]), 0)
    assert measured.by_label["precision"]["toxic"] == 0.0
    assert "toxic" not in measured.by_label["f1"]
    assert measured.macro["f1"] == pytest.approx((2 / 3 + 1) / 2)


def test_labels_become_names_of_metrics_that_differ():
    labels = ("a b", "a/b", "très", "A.b")
    measured = figures.measure(labels, [0, 1, 2, 3], probabilities([0, 1, 2, 3], labels), 0)
    names = {name for name in figures.flat(measured) if name.startswith("recall_")}
    assert names == {"recall_a_b_0", "recall_a_b_1", "recall_tr_s", "recall_A.b"}


def test_the_file_has_the_labels_in_full_and_is_json():
    labels = ("a b", "a/b")
    measured = figures.measure(labels, [0, 1], probabilities([0, 1], labels), 0)
    content = json.loads(json.dumps(figures.as_json(measured)))
    assert content["by_label"]["recall"] == {"a b": 1.0, "a/b": 1.0}
    assert content["accuracy"]["value"] == 1.0
    assert content["confusion"] == [[1, 0], [0, 1]]


def test_the_worst_errors_come_first():
    texts = ["right", "sure" + "!" * 400, "less sure"]
    p = np.array([[0.9, 0.1], [0.95, 0.05], [0.6, 0.4]])
    rows = figures.worst_errors(("civil", "rude"), texts, [0, 1, 1], p, 5)
    assert [row["text"][:9] for row in rows] == ["sure!!!!!", "less sure"]
    assert rows[0]["label"] == "rude"
    assert rows[0]["given"] == "civil"
    assert rows[0]["probability_of_label"] == 0.05
    assert len(rows[0]["text"]) == 300
    assert len(figures.worst_errors(("civil", "rude"), texts, [0, 1, 1], p, 1)) == 1
    assert figures.worst_errors(("civil", "rude"), texts, [0, 0, 0], p, 5) == []


@pytest.mark.parametrize("count", [2, 3, 40])
def test_plots_of_few_and_many_labels(count, tmp_path):
    labels = tuple(f"label {number}" for number in range(count))
    truth = [number % (count - 1) for number in range(60)]  # the last one has no text
    p = np.random.default_rng(0).dirichlet([1] * count, 60)
    measured = figures.measure(labels, truth, p, 0)
    figures.confusion_plot(measured).savefig(tmp_path / "confusion.png")
    plot = figures.precision_recall_plot(labels, truth, p)
    plot.savefig(tmp_path / "curves.png")
    assert len(plot.axes[0].lines) == min(count - 1, 8)
