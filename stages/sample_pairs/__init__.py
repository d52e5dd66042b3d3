"""Lets models reply to prompts, and chooses the pairs of replies worth a person's time."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from stages.core import tracking
from stages.core.artifacts import Artifact, make_artifact
from stages.core.config import Compute, SamplePairsConfig
from stages.core.contracts import SamplePairsInputs, SamplePairsOutputs
from stages.core.errors import UserError
from stages.core.feedback.pairs import PAIRS_FILE, CandidatePair, Purpose, write_pairs
from stages.core.launch import WARNING_PREFIX
from stages.sample_pairs import report
from stages.sample_pairs.candidates import Reply, candidate_pairs, num_equal
from stages.sample_pairs.choice import possible_choice
from stages.sample_pairs.prompts import Prompts, read_prompts
from stages.sample_pairs.reading import read_rows
from stages.sample_pairs.replies import Replies, sample_replies
from stages.sample_pairs.scores import scored_replies
from stages.sample_pairs.selection import gold_pairs, in_order_of_asking, quotas, select

MAX_CUT_SHARE = 0.2
"""Of the replies: from here on people would mostly compare beginnings."""


def run(
    config: SamplePairsConfig, inputs: SamplePairsInputs, compute: Compute, out_dir: Path
) -> tuple[SamplePairsOutputs, dict[str, float]]:
    """Sample replies, score them, and write ``pairs/`` (pairs.jsonl in the order of asking,
    report.md, a plot). Fewer pairs than ``num_pairs`` are a warning.

    Raises:
        UserError: no model, no usable prompt, no pair, or a model that cannot be loaded.
    """
    _check(config, inputs)
    wanted, notes = config.choice, list[str]()
    num_reward_models = (1 + (inputs.guard_model is not None)) if inputs.reward_model else 0
    choice = possible_choice(wanted, num_reward_models)
    if choice != wanted:
        lacking = "guard model" if num_reward_models else "reward model"
        notes.append(f"there is no {lacking}: pairs are chosen by {choice}, not by {wanted}")
    known = _known_pairs(inputs.known_pairs)
    gold = gold_pairs(read_rows("preferences", inputs.gold), known) if inputs.gold else []
    prompts = read_prompts(config, inputs)
    sampled = sample_replies(inputs.models, prompts.prompts, config, compute, out_dir)
    replies = scored_replies(inputs, compute, prompts.prompts, sampled)
    candidates = [
        pair
        for prompt, of_prompt in zip(prompts.prompts, replies, strict=True)
        for pair in candidate_pairs(prompt, of_prompt, known)
    ]
    counts = _counts(prompts, replies, sampled, config, known)
    selected = select(candidates, gold, choice, config)
    if not any(selected.values()):
        raise UserError(
            f"no pair to ask about: the replies to {len(prompts.prompts)} prompts are equal, empty "
            "or were asked about before; raise sample_pairs.num_replies or temperatures, change "
            "seed, or give other prompts"
        )
    if counts["num_cut_replies"] > MAX_CUT_SHARE * counts["num_replies"]:
        notes.append(
            f"{counts['num_cut_replies']} of {counts['num_replies']} replies break off after "
            f"sample_pairs.max_completion_length = {config.max_completion_length} tokens: raise "
            "it, or people compare beginnings"
        )
    notes += _shortages(config, inputs, prompts, selected, len(gold))
    for note in notes:
        print(f"{WARNING_PREFIX}{note}", flush=True)
    outcome = report.Outcome(
        config, choice, candidates, selected, counts, list(inputs.models), notes
    )
    return _write(out_dir / "pairs", outcome)


# ------------------------------------------------------------------------------------ helpers


def _check(config: SamplePairsConfig, inputs: SamplePairsInputs) -> None:
    if not inputs.models:
        raise UserError("no model to reply: name one or several, such as policy and sft")
    if len(inputs.models) * config.num_replies * len(config.temperatures) < 2:
        raise UserError(
            "one model that gives one reply to each prompt makes no pairs: raise "
            "sample_pairs.num_replies, or name two models"
        )
    if inputs.reward_model and inputs.base is None:
        raise UserError("a reward model needs the SFT model that it is an adapter on")


def _known_pairs(artifact: Artifact | None) -> frozenset[str]:
    if artifact is None:
        return frozenset()
    return frozenset(artifact.locate().read_text(encoding="utf-8").split())


def _counts(
    prompts: Prompts,
    replies: Sequence[Sequence[Reply]],
    sampled: Mapping[str, Replies],
    config: SamplePairsConfig,
    known: frozenset[str],
) -> dict[str, int]:
    everything = [reply for of_prompt in replies for reply in of_prompt]
    return {
        "num_prompts": len(prompts.prompts),
        "num_prompts_set_apart": prompts.num_reserved(config.random_share),
        "num_prompts_left_out": prompts.num_over_long,
        "num_replies": len(everything),
        "num_empty_replies": sum(not reply.text for reply in everything),
        "num_cut_replies": sum(of_model.num_cut for of_model in sampled.values()),
        "num_equal_replies": sum(map(num_equal, replies)),
        "num_pairs_asked_before": len(known),
    }


def _shortages(
    config: SamplePairsConfig,
    inputs: SamplePairsInputs,
    prompts: Prompts,
    selected: Mapping[Purpose, Sequence[CandidatePair]],
    num_gold: int,
) -> list[str]:
    """What there is less of than was asked for, and what to do about it."""
    found = []
    for purpose, wanted in quotas(config, num_gold).items():
        if (count := len(selected[purpose])) < wanted:
            apart = prompts.num_reserved(config.random_share)
            there = apart if purpose == "random" else len(prompts.prompts) - apart
            found.append(
                f"only {count} of {wanted} {purpose} pairs: {there} prompts give no more; give more"
                " prompts, raise sample_pairs.num_replies or temperatures, or lower num_pairs"
            )
    wished = round(config.gold_share * config.num_pairs)
    if inputs.gold and num_gold < wished:
        found.append(
            f"only {num_gold} of {wished} gold pairs are there that were not asked about before; "
            "give more, or lower sample_pairs.gold_share"
        )
    return found


def _write(folder: Path, outcome: report.Outcome) -> tuple[SamplePairsOutputs, dict[str, float]]:
    shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed while writing
    folder.mkdir(parents=True)
    pairs = in_order_of_asking(outcome.selected, outcome.config.seed)
    write_pairs(folder / PAIRS_FILE, pairs)
    figures, figure = report.metrics(outcome), report.draw(outcome)
    if figure is not None:
        tracking.log_figure(figure, report.PLOT, folder)
    text = report.markdown(outcome, figures, has_plot=figure is not None)
    (folder / "report.md").write_text(text, encoding="utf-8")
    return SamplePairsOutputs(pairs=make_artifact("pairs", folder)), figures
