"""The texts of the run form, which nobody writes by hand: titles and ranges."""

import pytest

from stages.core.config import PipelineConfig, PPOConfig
from stages.core.form import field_title


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("learning_rate", "Learning rate"),
        ("kl_coef", "KL coef"),
        ("num_ppo_epochs", "Num PPO epochs"),
        ("lora", "LoRA"),
        ("sft", "SFT"),
    ],
)
def test_titles_are_words_and_abbreviations_stand_out(name, title):
    assert field_title(name, PPOConfig.model_fields["kl_coef"]) == title


def test_a_description_says_which_numbers_are_allowed():
    settings = PPOConfig.model_json_schema()["properties"]
    assert settings["gamma"]["description"].endswith("Allowed: at least 0 and at most 1.")
    assert settings["temperature"]["description"].endswith("Allowed: above 0.")
    assert "Allowed" not in settings["whiten_rewards"]["description"]


def test_every_setting_has_a_title_a_description_and_a_literal_default():
    sections = PipelineConfig.model_json_schema()["$defs"]
    for section in [*sections.values(), PipelineConfig.model_json_schema()]:
        for name, setting in section["properties"].items():
            assert setting["title"], (section["title"], name)
            # Only what an item of a list cannot do without (the address of a URL) has none.
            is_required = name in section.get("required", ())
            assert is_required or "default" in setting, (section["title"], name)
            assert "description" in setting or "$ref" in setting, (section["title"], name)
            assert "anyOf" not in setting, (section["title"], name)
