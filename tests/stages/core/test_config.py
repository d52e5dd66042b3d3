"""The configuration: what is refused, what is shared, and that every knob is explained."""

import inspect

import pytest
from pydantic import BaseModel, ValidationError

from stages.core import config as schema
from stages.core import contracts
from stages.core.config import (
    CollectConfig,
    Compute,
    Frozen,
    PipelineConfig,
    PPOConfig,
    PretrainConfig,
    SFTConfig,
    StageConfig,
    TokenizerConfig,
)

MODELS = [
    item
    for module in (schema, contracts)
    for item in vars(module).values()
    if inspect.isclass(item)
    and issubclass(item, Frozen)
    and item.__module__.startswith(module.__name__)
]
STAGES = [item for item in MODELS if issubclass(item, StageConfig) and item.stage]
OWN_FLOWS = ("sample_pairs", "judge_pairs")
"""Stages that are no part of the pipeline."""
KNOBS = [*STAGES, Compute, PipelineConfig, schema.DataSource, schema.LoRAConfig]


# -------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_misspelt_keys_are_refused_everywhere(model):
    with pytest.raises(ValidationError) as refusal:
        model.model_validate({"no_such_key": 1})
    assert "extra_forbidden" in {error["type"] for error in refusal.value.errors()}


def test_a_typo_deep_inside_names_its_place():
    with pytest.raises(ValidationError) as refusal:
        PipelineConfig.model_validate({"sft": {"lora": {"rnak": 4}}})
    assert refusal.value.errors()[0]["loc"] == ("sft", "lora", "rnak")


@pytest.mark.parametrize("model", STAGES, ids=lambda model: model.__name__)
def test_configurations_are_frozen(model):
    config = model()
    name = next(iter(model.model_fields))
    with pytest.raises(ValidationError, match="frozen"):
        setattr(config, name, getattr(config, name))


@pytest.mark.parametrize(
    ("section", "changes", "part"),
    [
        ("ppo", {"batch_size": 10, "num_mini_batches": 4}, r"batch_size \(10\) must be divisible"),
        ("ppo", {"total_episodes": 63}, r"total_episodes \(63\) must be at least batch_size"),
        ("ppo", {"total_episodes": 192, "value_warmup_updates": 3}, r"none of the 3 updates"),
        ("ppo", {"temperature": 0}, "greater than 0"),
        ("ppo", {"lam": 1.01}, "less than or equal to 1"),
        ("ppo", {"kl_coef": -0.1}, "greater than or equal to 0"),
        ("ppo", {"kl_estimator": "k4"}, "'k1', 'k2' or 'k3'"),
        ("sft", {"learning_rate": 0}, "greater than 0"),
        ("sft", {"over_length": "split"}, "'drop' or 'truncate'"),
        ("sft", {"max_length": 1.5}, "integer"),
        ("reward_model", {"global_batch_size": 0}, "greater than or equal to 1"),
        ("tokenizer", {"vocab_size": 256}, "greater than or equal to 300"),
        ("clean", {"redact": ["name"]}, "'national_id' or 'secret'"),
        ("compute", {"device": "gpu"}, "'auto', 'cpu' or 'cuda'"),
        ("compute", {"micro_batch_size": 0}, "greater than or equal to 1"),
    ],
)
def test_impossible_settings_are_refused(section, changes, part):
    with pytest.raises(ValidationError, match=part) as refusal:
        PipelineConfig.model_validate({section: changes})
    assert refusal.value.errors()[0]["loc"][0] == section


def test_numbers_are_read_as_such_and_truth_values_stay_truth_values():
    overrides = {"hidden_size": 64, "tie_word_embeddings": True, "rope_theta": 1e4}
    config = PretrainConfig.model_validate({"model_overrides": overrides})
    assert config.model_overrides["tie_word_embeddings"] is True
    assert type(config.model_overrides["hidden_size"]) is int
    assert type(config.model_overrides["rope_theta"]) is float


# ------------------------------------------------------------------------------------------ seed


def test_the_seed_reaches_every_stage_that_has_one():
    config = PipelineConfig.model_validate({"seed": 7})
    seeded = {
        name: section.seed
        for name in PipelineConfig.model_fields
        if hasattr(section := getattr(config, name), "seed")
    }
    assert {"pretrain", "sft", "reward_model", "ppo", "evaluate"} <= seeded.keys()
    assert set(seeded.values()) == {7}


@pytest.mark.parametrize("section", [{"total_episodes": 128}, PPOConfig(total_episodes=128)])
def test_the_seed_is_shared_however_a_section_is_given(section):
    config = PipelineConfig(seed=7, ppo=section)
    assert (config.ppo.seed, config.ppo.total_episodes) == (7, 128)


def test_a_resolved_configuration_replays_as_itself():
    config = PipelineConfig.model_validate(
        {"seed": 3, "sft": {"lora": {"rank": 4}}, "collect": {"sft": {"paths": ["a.jsonl"]}}}
    )
    assert PipelineConfig.model_validate_json(config.model_dump_json()) == config
    assert PipelineConfig.model_validate(config.model_dump(mode="json")) == config


# --------------------------------------------------------------------------------------- the page


@pytest.mark.parametrize("model", KNOBS, ids=lambda model: model.__name__)
def test_every_knob_is_explained(model):
    """By the text under it or, where it is a group of knobs, by the group's own text."""
    for name, field in model.model_fields.items():
        own = field.description
        is_group = inspect.isclass(field.annotation) and issubclass(field.annotation, BaseModel)
        group = field.annotation.__doc__ if is_group else None
        assert own or group, f"{model.__name__}.{name} has no description"


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_model_says_what_it_is(model):
    assert model.__doc__
    assert model.__doc__.strip().endswith(".")


def test_knobs_with_a_unit_say_it():
    for model in (SFTConfig, PPOConfig, schema.RewardModelConfig, schema.EvaluateConfig):
        for name, field in model.model_fields.items():
            if name.startswith("max_") and name.endswith("_length"):
                assert "token" in field.description, f"{model.__name__}.{name}"


def test_every_stage_has_a_section_inputs_and_one_name():
    for model in STAGES:
        inputs = getattr(contracts, model.__name__.removesuffix("Config") + "Inputs")
        assert issubclass(inputs, Frozen)
        if model.stage not in OWN_FLOWS:
            assert PipelineConfig.model_fields[model.stage].annotation is model
    assert len({model.stage for model in STAGES}) == len(STAGES)


def test_defaults_of_one_configuration_are_not_shared_with_the_next():
    assert TokenizerConfig() == TokenizerConfig()
    assert CollectConfig().documents.columns is not CollectConfig().sft.columns
