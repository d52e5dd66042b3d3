"""How a setting appears in a run form: its title, and the allowed range after its description."""

from typing import Any

from pydantic import Field
from pydantic.fields import ComputedFieldInfo, FieldInfo

ABBREVIATIONS = {
    "cpu", "dpo", "eos", "gpu", "kl", "ppo", "sft", "sql", "url",
}  # fmt: skip
SPELLED = {"urls": "URLs", "lora": "LoRA", "adam": "Adam", "lam": "lambda", "vf": "value function"}
LIMITS = {
    "exclusiveMinimum": "above {}",
    "minimum": "at least {}",
    "exclusiveMaximum": "below {}",
    "maximum": "at most {}",
}


def field_title(name: str, info: FieldInfo | ComputedFieldInfo) -> str:
    """``kl_coef`` → ``KL coef``."""
    return _title(name)


def section_title(model: type) -> str:
    """The heading of a section: its class without the ending."""
    return model.__name__.removesuffix("Config")


def parameter(title: str, description: str = "", gt: float | None = None) -> Any:
    """How a flow's own parameter appears, for ``Annotated``.

    Prefect names parameters as the code does, takes their description from the docstring only, and
    drops those of a ``Field``; what is in ``json_schema_extra`` stays.
    """
    shown: dict[str, Any] = {"title": title}
    if description:
        shown["description"] = description
    return Field(json_schema_extra=shown, gt=gt)


def complete_schema(schema: dict[str, Any]) -> None:
    """Say in words, in each setting's description, which numbers are allowed, and give sections the
    title of their field, since one class may be used in several places."""
    for name, setting in schema.get("properties", {}).items():
        if "$ref" in setting:
            setting["title"] = _title(name)
        limits = [text.format(setting[key]) for key, text in LIMITS.items() if key in setting]
        if limits:
            described = setting.get("description", "").rstrip()
            setting["description"] = f"{described} Allowed: {' and '.join(limits)}.".lstrip()


# ------------------------------------------------------------------------------------ helpers


def _title(name: str) -> str:
    words = [_spelled(word) for word in name.split("_")]
    return " ".join([words[0][:1].upper() + words[0][1:], *words[1:]])


def _spelled(word: str) -> str:
    return SPELLED.get(word, word.upper() if word in ABBREVIATIONS else word)
