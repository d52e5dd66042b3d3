"""The contents of the report's tables: what each row is called, means and shows."""

from collections.abc import Sequence
from typing import Any

from stages.core.chat import prompt_text
from stages.core.config import EvaluateConfig
from stages.core.statistics import Estimate
from stages.evaluate.comparison import CONTRASTS, MODELS, REWARD_MODEL, Figures, Measurements
from stages.evaluate.held_out import MAX_CONTEXT
from stages.evaluate.verdict import percent

MAX_SHOWN_CHARACTERS = 500
"""Longer prompts and replies are cut in the samples table."""

Cell = dict[str, str]


def headline(measured: Measurements, figures: Figures) -> list[dict[str, Any]]:
    models = [figures.models[name] for name in MODELS]
    rows = [
        {
            "label": _label(scorer),
            "explanation": "what PPO maximises, raw; only differences have a meaning"
            if scorer == REWARD_MODEL
            else "a judge that no training stage saw",
            "cells": [_cell(model.scores[scorer]) for model in models],
        }
        for scorer in (REWARD_MODEL, *measured.scorers)
    ]
    rows.insert(
        1,
        _row(
            "… in standard deviations",
            "the same, relative to the SFT samples seen when it was trained",
            [_number(model.normalized_score, 2, signed=True) for model in models],
        ),
    )
    rows.append(
        {
            "label": "KL to the SFT model",
            "explanation": "distance from the SFT model, nats a reply; 0 is equal",
            "cells": [
                {"value": "0", "interval": ""} if name == "sft" else _cell(model.kl, 2)
                for name, model in zip(MODELS, models, strict=True)
            ],
        }
    )
    rows.append(
        {
            "label": "Reply length",
            "explanation": "mean, tokens",
            "cells": [_cell(model.length, 1) for model in models],
        }
    )
    rows += [
        _row(
            "Replies that end by themselves",
            "the rest hit the length limit",
            [percent(model.eos_rate) for model in models],
        ),
        _row(
            "Distinct words · word pairs",
            "share that occurs first, over all replies; low is repetitive",
            [f"{percent(model.distinct_1)} · {percent(model.distinct_2)}" for model in models],
        ),
    ]
    if measured.sft_loss:
        rows.append(
            _row(
                "Loss on demonstrations",
                "held-out replies, nats a token; lower is better",
                [f"{measured.sft_loss[name]:.3f}" for name in MODELS],
            )
        )
    if measured.bits_per_byte:
        rows.append(
            _row(
                "Bits per byte",
                "prediction of held-out documents; lower is better, higher after training means "
                "forgetting",
                [f"{measured.bits_per_byte[name]:.3f}" for name in MODELS],
            )
        )
    return rows


def contrasts(measured: Measurements, figures: Figures) -> list[dict[str, Any]]:
    return [
        {
            "label": _label(scorer),
            "cells": [
                cell
                for pair in CONTRASTS
                for contrast in [figures.contrasts[pair][scorer]]
                for cell in (_cell(contrast.difference, signed=True), _share(contrast.win_rate))
            ],
        }
        for scorer in (REWARD_MODEL, *measured.scorers)
    ]


def reward_model(figures: Figures) -> dict[str, Any] | None:
    found = figures.reward_model
    if found is None:
        return None
    rows = [
        ("Accuracy", "pairs whose preferred reply scores higher", _share(found.accuracy)),
        (
            "Longer-answer baseline",
            "accuracy of always preferring the longer reply, ties counted half",
            _share(found.length_baseline),
        ),
        (
            "Mean margin",
            "score of the preferred minus score of the other reply",
            _cell(found.margin, signed=True),
        ),
    ]
    return {
        "num_pairs": found.num_pairs,
        "rows": [
            {"label": label, "explanation": explanation, "cell": cell}
            for label, explanation, cell in rows
        ],
    }


def sample(measured: Measurements, index: int) -> dict[str, Any]:
    return {
        "prompt": _cut(prompt_text(measured.prompts[index])),
        "replies": [
            {
                "text": _cut(replies.texts[index]) or "(empty)",
                "figures": " · ".join(
                    [
                        *(
                            f"{scorer.replace('_', ' ')} {_number(values[index], 2)}"
                            for scorer, values in replies.scores.items()
                        ),
                        *((f"KL {_number(replies.kl[index], 1)}",) if name != "sft" else ()),
                        f"{replies.lengths[index]} tokens",
                        *(() if replies.ended[index] else ("cut off",)),
                    ]
                ),
            }
            for name in MODELS
            for replies in [measured.replies[name]]
        ],
    }


def notes(config: EvaluateConfig, measured: Measurements) -> list[str]:
    notes = [
        "Replies are pure samples at the stated temperature (no top-k or top-p), with the same "
        "random numbers for each model. KL is the sum over a reply's tokens of "
        "log p(model) − log p(SFT model) at that temperature.",
        f"Intervals: {config.num_bootstrap_samples} bootstrap resamples of the prompts, "
        "differences paired by prompt; Wilson's interval for the reward model's accuracy and its "
        "baseline.",
    ]
    if measured.num_bytes:
        notes.append(
            f"Bits per byte over {measured.num_bytes:,} bytes of held-out documents, in chunks of "
            f"at most {MAX_CONTEXT} tokens or the model's limit."
        )
    if measured.num_demonstrations:
        notes.append(
            f"Loss over the replies (not the prompts) of {measured.num_demonstrations} held-out "
            "demonstrations."
        )
    return notes


# ---------------------------------------------------------------------------------------- cells


def _row(label: str, explanation: str, values: Sequence[str]) -> dict[str, Any]:
    cells = [{"value": value, "interval": ""} for value in values]
    return {"label": label, "explanation": explanation, "cells": cells}


def _label(scorer: str) -> str:
    return "Reward-model score" if scorer == REWARD_MODEL else f"{scorer} score"


def _cell(estimate: Estimate, digits: int = 3, *, signed: bool = False) -> Cell:
    value, low, high = (_number(item, digits, signed) for item in estimate)
    return {"value": value, "interval": f"{low} to {high}"}


def _share(estimate: Estimate) -> Cell:
    value, low, high = map(percent, estimate)
    return {"value": value, "interval": f"{low} to {high}"}


def _number(value: float, digits: int, signed: bool = False) -> str:
    text = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
    return text.replace("-", "−")


def _cut(text: str) -> str:
    rest = len(text) - MAX_SHOWN_CHARACTERS
    return text if rest <= 0 else f"{text[:MAX_SHOWN_CHARACTERS]}… ({rest} more characters)"
