"""What a user may name as a scorer, without torch; bases of reward models: see test_scorers."""

import json

import pytest

from stages.core.errors import UserError
from stages.core.scorer_places import check_scorer_name, scorer_folder_kind


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
