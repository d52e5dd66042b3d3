"""Ready-made configurations, and changes to them by dotted keys.

A profile is derived from another one by ``override``, which validates the whole result again.
"""

import contextlib
import difflib
import json
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from stages.core.config import PipelineConfig
from stages.core.errors import UserError, without_passwords

SAMPLES = "data/samples"
Settings = TypeVar("Settings", bound=BaseModel)


def cpu_demo() -> PipelineConfig:
    """The embedded data and a model of 2.6 million parameters: minutes on two cores."""
    reward_model = {
        "lora": {"rank": 32, "alpha": 64},
        "global_batch_size": 16,
        "max_length": 128,
        "max_completion_length": 40,
        "num_epochs": 1.0,
        "learning_rate": 2e-3,
        "eval_steps": 125,
        "save_steps": 125,
    }
    return PipelineConfig.model_validate(
        {
            "profile": "cpu-demo",
            "compute": {"device": "cpu", "micro_batch_size": 32},
            "collect": {
                kind: {
                    "paths": [f"{SAMPLES}/{kind}.jsonl"],
                    "held_out_paths": [f"{SAMPLES}/{kind}_held_out.jsonl"],
                }
                for kind in ("documents", "sft", "preferences", "prompts", "labelled")
            },
            "clean": {"guard_share": 0.25},
            "tokenizer": {"vocab_size": 1024},
            "pretrain": {
                "model_overrides": {
                    "hidden_size": 256,
                    "intermediate_size": 688,
                    "num_hidden_layers": 3,
                    "num_attention_heads": 4,
                    "num_key_value_heads": 4,
                    "max_position_embeddings": 256,
                    "tie_word_embeddings": True,
                },
                "sequence_length": 128,
                "global_batch_size": 8,
                "num_epochs": 6.0,
                "learning_rate": 3e-3,
                "eval_steps": 250,
                "save_steps": 250,
            },
            "sft": {
                "lora": {"rank": 32, "alpha": 64},
                "global_batch_size": 16,
                "max_length": 128,
                "num_epochs": 1.5,
                "learning_rate": 2e-3,
                "eval_steps": 125,
                "save_steps": 125,
            },
            "reward_model": reward_model,
            # A third of the reward model's pairs, as many steps.
            "guard_model": reward_model | {"num_epochs": 3.0},
            "classifier": {
                "global_batch_size": 16,
                "max_length": 64,
                "num_epochs": 2.0,
                "learning_rate": 1e-3,
                "eval_steps": 25,
                "save_steps": 25,
            },
            "ppo": {
                "total_episodes": 1920,
                "max_prompt_length": 64,
                "max_completion_length": 40,
                "learning_rate": 1e-3,
                # At 0.1 the policy of some seeds drifts to names that the reward model happens to
                # like, and answers about the wrong person.
                "kl_coef": 0.3,
                "save_updates": 5,
            },
            "evaluate": {
                "scorers": {"oracle": f"{SAMPLES}/oracle.py:score"},
                "max_completion_length": 40,
            },
        }
    )


def smollm2() -> PipelineConfig:
    """A real model of 135M parameters, given with ``base_model.source``, on files of yours."""
    reward_model = {
        "max_length": 768,
        "max_over_length_share": 0.5,
        "learning_rate": 3e-4,
        "max_completion_length": 96,
    }
    return PipelineConfig.model_validate(
        {
            "profile": "smollm2",
            "compute": {"micro_batch_size": 4},
            "clean": {"guard_share": 0.2},
            "pretrain": {"enabled": False},
            "sft": {"max_length": 512, "max_over_length_share": 0.5, "learning_rate": 5e-4},
            "reward_model": reward_model,
            "guard_model": reward_model,
            "ppo": {
                "total_episodes": 1024,
                "batch_size": 32,
                "max_prompt_length": 256,
                "max_completion_length": 96,
                "learning_rate": 1e-4,
            },
            "evaluate": {"num_prompts": 100, "max_completion_length": 96},
        }
    )


def single_gpu() -> PipelineConfig:
    """``smollm2`` at sizes that fill one GPU; bf16 follows from the device."""
    return override(
        smollm2(),
        {
            "profile": "single-gpu",
            "compute.device": "cuda",
            # The reward model takes 16 replies of 1,024 tokens at once: by estimate 16 GB.
            "compute.micro_batch_size": 8,
            "sft.global_batch_size": 128,
            "sft.max_length": 1024,
            **{
                f"{stage}.{name}": value
                for stage in ("reward_model", "guard_model")
                for name, value in {
                    "global_batch_size": 128,
                    "max_length": 1024,
                    "max_completion_length": 256,
                    "num_statistics_samples": 512,
                }.items()
            },
            "ppo.total_episodes": 50_000,
            "ppo.batch_size": 512,
            "ppo.max_completion_length": 256,
            "evaluate.num_prompts": 500,
            "evaluate.max_completion_length": 256,
        },
    )


PROFILES: dict[str, Callable[[], PipelineConfig]] = {
    "cpu-demo": cpu_demo,
    "smollm2": smollm2,
    "single-gpu": single_gpu,
}


def profile(name: str) -> PipelineConfig:
    """The profile called ``name``.

    Raises:
        UserError: there is none; names the nearest.
    """
    if name not in PROFILES:
        near = difflib.get_close_matches(name, PROFILES, n=1, cutoff=0.0)[0]
        known = ", ".join(PROFILES)
        raise UserError(f"no profile {name!r}; did you mean {near!r}? There are: {known}")
    return PROFILES[name]()


def override(config: Settings, changes: Mapping[str, Any]) -> Settings:
    """``config`` with the settings at the dotted keys changed, validated as a whole.

    Text is read as JSON where the setting is not text itself: ``"0.1"``, ``"true"``,
    ``'["a.jsonl"]'``; a single text or table for a list becomes a list of one.

    Raises:
        UserError: a key that does not exist (the message names the nearest one), or a value that
            is not allowed.
    """
    data, model = config.model_dump(mode="json"), type(config)
    for key, value in changes.items():
        if issubclass(model, PipelineConfig):
            _refuse_section_seed(key)
        _set(data, key, value, model)
    return _validated(data, changes, model)


def setting(text: str) -> tuple[str, str]:
    """Key and value of an option ``--set KEY=VALUE``.

    Raises:
        UserError: there is no key or no =.
    """
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UserError(f"--set {text}: must be KEY=VALUE, such as ppo.kl_coef=0.1")
    return key.strip(), value


def validated(data: Mapping[str, Any], changes: Mapping[str, Any] | None = None) -> PipelineConfig:
    """The configuration in ``data``, as it came out of JSON.

    Raises:
        UserError: one line on the first fault: the setting, its value, and what is allowed.
    """
    return _validated(data, changes or {}, PipelineConfig)


def merged(config: PipelineConfig, data: Mapping[str, Any]) -> PipelineConfig:
    """``config`` with the settings in ``data``, which may be a part of a configuration.

    Raises:
        UserError: as ``override``.
    """
    changes = dict(_leaves(PipelineConfig, data))
    seed = changes.get("seed", config.seed)
    # A resolved configuration repeats the seed in its sections.
    shared = {key for key, value in changes.items() if _is_section_seed(key) and value == seed}
    return override(config, {key: changes[key] for key in changes.keys() - shared})


# ------------------------------------------------------------------------------------ helpers


def _validated(
    data: Mapping[str, Any], changes: Mapping[str, Any], model: type[Settings]
) -> Settings:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise UserError(_first_fault(error, changes, model)) from None


def known_keys(model: type[BaseModel] = PipelineConfig, prefix: str = "") -> Iterator[str]:
    """Every dotted key that can be set, sections left out."""
    for name, field in model.model_fields.items():
        section = _section(field.annotation)
        if section is None:
            yield prefix + name
        else:
            yield from known_keys(section, f"{prefix}{name}.")


def _set(data: dict[str, Any], key: str, value: Any, root: type[BaseModel]) -> None:
    """Put ``value`` at the dotted ``key``, which may end inside a setting that is a table."""
    model = root
    place = data
    parts = key.split(".")
    for position, part in enumerate(parts):
        field = model.model_fields.get(part)
        if field is None:
            raise UserError(_unknown(key, root))
        rest = parts[position + 1 :]
        section = _section(field.annotation)
        if section is not None:
            if not rest:
                raise UserError(_whole_section(key, section))
            model, place = section, place[part]
        elif rest and typing.get_origin(field.annotation) is dict:
            entry = ".".join(rest)
            kind = typing.get_args(field.annotation)[1]
            place[part] = place[part] | {entry: _parsed(value, kind)}
            return
        elif rest:
            raise UserError(_unknown(key, root))
        else:
            place[part] = _parsed(value, field.annotation)


def _parsed(value: Any, annotation: Any) -> Any:
    if isinstance(value, str) and annotation is not str:
        with contextlib.suppress(ValueError):
            value = json.loads(value)
    is_list = typing.get_origin(annotation) in (tuple, list)
    return [value] if is_list and isinstance(value, str | Mapping) else value


def _section(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, types.GenericAlias) or not isinstance(annotation, type):
        return None
    return annotation if issubclass(annotation, BaseModel) else None


def _leaves(model: type[BaseModel], data: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(data, Mapping):
        name = prefix.rstrip(".") or "the configuration"
        raise UserError(f"{name} must be a table of settings, not {data!r}")
    for name, value in data.items():
        field = model.model_fields.get(name)
        section = _section(field.annotation) if field else None
        if section is not None:
            yield from _leaves(section, value, f"{prefix}{name}.")
        elif field is None and isinstance(value, Mapping) and value:
            yield f"{prefix}{name}.{next(iter(value))}", value  # refused under its whole name
        else:
            yield prefix + name, value


def _is_section_seed(key: str) -> bool:
    return key.endswith(".seed") and key in known_keys()


def _refuse_section_seed(key: str) -> None:
    if _is_section_seed(key):
        raise UserError(f"{key} cannot be set by itself: set seed, which all stages share")


def _unknown(key: str, model: type[BaseModel]) -> str:
    """The message on a misspelt key. The last part counts twice, since a right name in a wrong
    section is the likelier mistake."""
    last = key.rpartition(".")[2]

    def likeness(known: str) -> float:
        whole = difflib.SequenceMatcher(None, key, known).ratio()
        return whole + 2 * difflib.SequenceMatcher(None, last, known.rpartition(".")[2]).ratio()

    shares_seed = issubclass(model, PipelineConfig)
    candidates = [
        known for known in known_keys(model) if not (shares_seed and _is_section_seed(known))
    ]
    return f"no setting {key!r}; did you mean {max(candidates, key=likeness)!r}?"


def _unknown_in_item(place: tuple[int | str, ...], root: type[BaseModel]) -> str:
    """The message on a misspelt key of a table in a list; empty where the place is none."""
    annotation: Any = root
    for part in place[:-1]:
        if isinstance(part, int):
            annotation = typing.get_args(annotation)[0]
        elif (section := _section(annotation)) is not None:
            annotation = section.model_fields[part].annotation
    model = _section(annotation)
    if model is None or not any(isinstance(part, int) for part in place):
        return ""
    item = ".".join(map(str, place[:-1]))
    names = ", ".join(model.model_fields)
    return f"{item}: no setting {str(place[-1])!r} there; there are: {names}"


def _whole_section(key: str, section: type[BaseModel]) -> str:
    names = ", ".join(f"{key}.{name}" for name in list(section.model_fields)[:3])
    return f"{key} is a section; set its settings one by one: {names}, …"


def _first_fault(error: ValidationError, changes: Mapping[str, Any], model: type[BaseModel]) -> str:
    fault = error.errors()[0]
    setting = ".".join(str(part) for part in fault["loc"])
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        return _unknown_in_item(fault["loc"], model) or _unknown(setting, model)
    if isinstance(fault["input"], Mapping):  # a rule over several settings of a section
        return f"{setting}: {message}" if setting else message
    shown = without_passwords(repr(changes.get(setting, fault["input"])))
    return f"{setting} = {shown} is not allowed: {message[:1].lower()}{message[1:]}"
