import json

import pytest

from flows.profiles import PROFILES, cpu_demo, known_keys, merged, override, profile
from stages.core.config import PipelineConfig
from stages.core.errors import UserError


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_validates_and_is_called_by_its_name(name: str) -> None:
    assert profile(name).profile == name


def test_unknown_profile_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'cpu-demo'"):
        profile("cpu_demo")


def test_override_reads_text_as_json_where_the_setting_is_no_text() -> None:
    config = override(
        cpu_demo(),
        {
            "ppo.kl_coef": "0.125",
            "pretrain.enabled": "false",
            "collect.sft.paths": '["a.jsonl", "b.jsonl"]',
            "collect.prompts.paths": "c.jsonl",
            "base_model.source": "123",
            "sft.lora.rank": "8",
        },
    )
    assert config.ppo.kl_coef == 0.125
    assert config.pretrain.enabled is False
    assert config.collect.sft.paths == ("a.jsonl", "b.jsonl")
    assert config.collect.prompts.paths == ("c.jsonl",)
    assert config.base_model.source == "123"
    assert config.sft.lora.rank == 8


def test_override_reaches_into_tables() -> None:
    config = override(cpu_demo(), {"pretrain.model_overrides.hidden_size": "64"})
    assert config.pretrain.model_overrides["hidden_size"] == 64
    assert config.pretrain.model_overrides["num_hidden_layers"] == 3


def test_override_leaves_the_given_configuration_alone() -> None:
    config = cpu_demo()
    override(config, {"ppo.kl_coef": 9.0, "evaluate.scorers.other": "a.py:f"})
    assert config == cpu_demo()


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("ppo.kl_ceof", "ppo.kl_coef"),
        ("kl_coef", "ppo.kl_coef"),
        ("sft.kl_coef", "ppo.kl_coef"),
        ("pretain.num_epoch", "pretrain.num_epochs"),
        ("sft.lora.rnk", "sft.lora.rank"),
        ("collect.sft.path", "collect.sft.paths"),
        ("sed", "seed"),
    ],
)
def test_unknown_key_names_the_nearest(key: str, nearest: str) -> None:
    with pytest.raises(UserError, match=f"no setting '{key}'; did you mean '{nearest}'"):
        override(cpu_demo(), {key: "1"})


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("ppo.kl_coef", "-1", r"ppo.kl_coef = '-1' .* greater than or equal to 0"),
        ("ppo.kl_coef", "much", r"ppo.kl_coef = 'much' .* valid number"),
        ("compute.device", "tpu", r"compute.device = 'tpu' .* 'auto', 'cpu' or 'cuda'"),
        ("ppo.batch_size", "63", r"ppo: batch_size \(63\) must be divisible"),
        ("ppo", "1", r"ppo is a section; .* ppo.algorithm"),
    ],
)
def test_wrong_value_names_setting_value_and_what_is_allowed(
    key: str, value: str, message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        override(cpu_demo(), {key: value})
    assert "\n" not in str(caught.value)


def test_seed_is_shared_by_all_sections() -> None:
    config = override(cpu_demo(), {"seed": "7"})
    seeds = {key for key in known_keys() if key.endswith(".seed")}
    assert {"pretrain.seed", "ppo.seed", "evaluate.seed"} <= seeds
    assert {getattr(config, key.partition(".")[0]).seed for key in seeds} == {7}


def test_seed_of_one_section_is_refused() -> None:
    with pytest.raises(UserError, match="set seed, which all stages share"):
        override(cpu_demo(), {"ppo.seed": "7"})


def test_resolved_configuration_replays() -> None:
    config = override(cpu_demo(), {"seed": 5, "ppo.kl_coef": 0.3, "collect.sft.paths": ["x"]})
    resolved = json.loads(config.model_dump_json())
    assert merged(PipelineConfig(), resolved) == config
    assert merged(cpu_demo(), resolved) == config


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "must be a table"),
        ({"ppo": 3}, "ppo must be a table"),
        ({"ppo": {"kl_ceof": 2}}, "did you mean 'ppo.kl_coef'"),
        ({"pop": {"kl_coef": 2}}, "did you mean 'ppo.kl_coef'"),
        ({"seed": 3, "ppo": {"seed": 4}}, "set seed"),
    ],
)
def test_faulty_configuration_file(data: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        merged(cpu_demo(), data)  # type: ignore[arg-type]
