"""What a user may name as a scorer, without torch; bases of reward models: see test_scorers."""

import json

import pytest

from stages.core.errors import UserError
from stages.core.scorer_places import (
    check_scorer_name,
    classifier_labels,
    find_label,
    is_chain_classifier,
    place_label,
    scorer_folder_kind,
)


@pytest.mark.parametrize("name", ["oracle", "Judge_2"])
def test_names_that_metrics_can_carry(name):
    check_scorer_name("ppo.scorers.x", name)


@pytest.mark.parametrize("name", ["", "2nd", "a b", "a/b", "ä"])
def test_other_names_are_refused_with_the_setting(name):
    with pytest.raises(UserError, match=r"^ppo\.scorers\.x: choose another name"):
        check_scorer_name("ppo.scorers.x", name)


def test_a_folder_is_one_of_two_kinds(reward_model_folder, tmp_path):
    assert scorer_folder_kind(reward_model_folder) == "reward_model"
    config = {"architectures": ["LlamaForSequenceClassification"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert scorer_folder_kind(tmp_path) == "classifier"


@pytest.mark.parametrize("config", [None, "{", "[]", '{"architectures": ["LlamaForCausalLM"]}'])
def test_any_other_folder_is_refused(tmp_path, config):
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    with pytest.raises(UserError, match=r"no reward model: neither reward_model\.json"):
        scorer_folder_kind(tmp_path)


@pytest.mark.parametrize(
    ("place", "label", "is_chains"),
    [
        ("my/folder", "", False),
        ("my/folder:toxic", "toxic", False),
        ("my/folder:-a:b", "-a:b", False),
        ("classifier", "", False),
        ("./classifier:toxic", "toxic", False),
        ("classifier:-toxic", "-toxic", True),
    ],
)
def test_what_stands_behind_the_folder_is_the_label(place, label, is_chains):
    assert place_label(place) == label
    assert is_chain_classifier(place) == is_chains


def test_a_label_is_found_before_a_negative():
    assert find_label(["-1", "0", "1"], "-1") == (0, 1)
    assert find_label(["0", "1"], "-1") == (1, -1)
    assert find_label(["score"], "") == (0, 1)
    many = [f"class{number}" for number in range(12)]
    with pytest.raises(UserError, match=r"no label 'x'; name one of class0, .*, class9, … behind"):
        find_label(many, "x")


@pytest.mark.parametrize(
    ("config", "labels"),
    [
        ({"id2label": {"1": "b", "0": "a", "10": "c"}}, ("a", "b", "c")),
        ({}, ("LABEL_0", "LABEL_1")),
    ],
)
def test_labels_stand_in_the_order_of_the_outputs(tmp_path, config, labels):
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert classifier_labels(tmp_path) == labels


@pytest.mark.parametrize("labels", [["a", "b"], {"first": "a"}])
def test_labels_without_numbers_are_one_line(tmp_path, labels):
    (tmp_path / "config.json").write_text(json.dumps({"id2label": labels}))
    with pytest.raises(UserError, match=r"config\.json: id2label does not name"):
        classifier_labels(tmp_path)
