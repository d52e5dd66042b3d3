"""Fine-tune a sequence classifier on labelled text: an encoder or a language model, all weights."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from safetensors import SafetensorError
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    EvalPrediction,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainingArguments,
    set_seed,
)

from stages.classifier import figures
from stages.core import tracking
from stages.core.artifacts import make_artifact
from stages.core.config import ClassifierConfig, Compute
from stages.core.contracts import ClassifierInputs, ClassifierOutputs
from stages.core.errors import UserError
from stages.core.launch import WARNING_PREFIX
from stages.core.models import first_line, pick_device, save_model
from stages.core.schemas import read_jsonl
from stages.core.scorer_places import check_tokenizer_files
from stages.core.scoring import pad_right
from stages.core.sequence_classifier import SequenceClassifier, load_sequence_classifier
from stages.core.training import stop_early, train, trainer_settings

FIGURES_FILE = "figures.json"
SHOWN_ERRORS = 20

Rows = Sequence[Mapping[str, str]]


def run(
    config: ClassifierConfig, inputs: ClassifierInputs, compute: Compute, out_dir: Path
) -> tuple[ClassifierOutputs, dict[str, float]]:
    """Train all weights, keep those with the best held-out loss, and measure them held out.

    The folder has the model in transformers' format, its tokenizer, and ``figures.json``: the
    held-out figures by label.

    Metrics, held out: ``accuracy`` with ``_low`` and ``_high``, ``majority_accuracy``,
    ``held_out_loss``; ``precision``, ``recall``, ``f1`` and ``average_precision``, with ``macro_``
    before them or ``_<label>`` behind. One that is not defined is left out, and a line says so.

    Raises:
        UserError: fewer than two labels, no held-out text, or a held-out label that training lacks;
            a model that cannot be loaded or does not take ``max_length`` tokens.
    """
    set_seed(config.seed)
    device = pick_device(compute)
    data = inputs.labelled.locate()
    rows, held_out = (list(read_jsonl(data / f"{split}.jsonl")) for split in ("train", "held_out"))
    labels = find_labels(rows, held_out)
    classifier = load_start(config, inputs, labels)
    train_data, num_long = tokenize("train", rows, classifier)
    held_out_data, num_held_out_long = tokenize("held_out", held_out, classifier)

    best_settings, callbacks = stop_early(config, config.early_stopping_patience)
    trainer = Trainer(
        model=classifier.model,
        args=TrainingArguments(**trainer_settings(config, compute, out_dir), **best_settings),
        train_dataset=train_data,
        eval_dataset=held_out_data,
        data_collator=partial(_collate, pad=classifier.tokenizer.pad_token_id),
        compute_metrics=_accuracy,
        preprocess_logits_for_metrics=lambda logits, targets: logits.argmax(dim=-1),
        callbacks=callbacks,
    )
    train(trainer, out_dir)
    loss = trainer.evaluate()["eval_loss"]
    folder = out_dir / "classifier"
    trained: PreTrainedModel = trainer.accelerator.unwrap_model(trainer.model)
    save_model(trained, classifier.tokenizer, folder)
    steps = trainer.state.global_step
    del trainer, trained, classifier

    # From here on with what was written: what later stages load is what was measured.
    measured = _measure(folder, device, rows, held_out, out_dir)
    metrics = {
        **figures.flat(measured),
        "held_out_loss": loss,
        "num_labels": float(len(labels)),
        "over_length": float(num_long + num_held_out_long),
        "steps": float(steps),
    }
    return ClassifierOutputs(classifier=make_artifact("classifier", folder)), metrics


def find_labels(rows: Rows, held_out: Rows) -> tuple[str, ...]:
    """The labels of the training data, in alphabetical order.

    Raises:
        UserError: there are fewer than two, no held-out text, or one whose label training lacks.
    """
    labels = sorted({row["label"] for row in rows})
    if len(labels) < 2:
        raise UserError(
            f"collect.labelled: all {len(rows)} training texts are labelled "
            f"{', '.join(map(repr, labels))}; a classifier needs texts of two labels or more"
        )
    if not held_out:
        raise UserError(
            "collect.labelled: no held-out texts, on which the classifier is measured; give "
            "held_out_paths or a held_out_share above 0"
        )
    unknown = Counter(row["label"] for row in held_out if row["label"] not in labels)
    if unknown:
        shown = ", ".join(f"{label!r} ({count})" for label, count in unknown.most_common(3))
        raise UserError(
            f"collect.labelled: held-out texts have labels that no training text has: {shown}; "
            f"training has {', '.join(map(repr, labels[:10]))}; give training texts of them, or "
            "take them out"
        )
    return tuple(labels)


def load_start(
    config: ClassifierConfig, inputs: ClassifierInputs, labels: Sequence[str]
) -> SequenceClassifier:
    """The model to start from with a new head for these labels, and its tokenizer, which pads on
    the right and cuts at ``max_length``.

    Raises:
        UserError: it cannot be loaded, lacks weights, or takes fewer tokens.
    """
    place = inputs.model.locate() if inputs.model else config.source
    where: dict[str, Any] = {"pretrained_model_name_or_path": place, "trust_remote_code": False}
    if inputs.model is not None:
        check_tokenizer_files(inputs.model.locate())
    elif not config.revision:
        raise UserError(
            f"classifier.source = {place} is a hub name (no such file or folder here): pin it with "
            "classifier.revision=<commit>"
        )
    else:
        where["revision"] = config.revision
    try:
        tokenizer = AutoTokenizer.from_pretrained(**where)
        model, loading = AutoModelForSequenceClassification.from_pretrained(
            **where,
            id2label=dict(enumerate(labels)),
            label2id={label: number for number, label in enumerate(labels)},
            problem_type="single_label_classification",
            ignore_mismatched_sizes=True,  # the head of a classifier with other labels
            dtype=torch.float32,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        reason = first_line(error)
        raise UserError(f"classifier: {place} cannot be loaded: {reason}") from error
    random = [*loading["missing_keys"], *(key for key, *_ in loading["mismatched_keys"])]
    backbone = f"{model.base_model_prefix}."
    # A pooler is part of the head: encoders come without one from masked language modelling.
    if lost := [key for key in random if key.startswith(backbone) and "pooler" not in key]:
        raise UserError(
            f"classifier: {place} lacks weights of its backbone: {', '.join(sorted(lost)[:3])}"
        )
    _set_padding(model, tokenizer, str(place))
    classifier = SequenceClassifier(model, tokenizer)
    if config.max_length > classifier.max_length:
        raise UserError(
            f"classifier.max_length = {config.max_length} exceeds the {classifier.max_length} "
            f"tokens that {place} takes; lower it"
        )
    classifier.max_length = tokenizer.model_max_length = config.max_length
    return classifier


def _set_padding(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, place: str) -> None:
    """Give model and tokenizer one padding token, EOS where they have none.

    Causal models are read at the last token that is not padding. No text ends in EOS by itself,
    since special tokens written out in it are broken up.

    Raises:
        UserError: there is neither.
    """
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise UserError(f"classifier: the tokenizer of {place} has neither padding nor EOS")
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = tokenizer.truncation_side = "right"
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id


def tokenize(split: str, rows: Rows, classifier: SequenceClassifier) -> tuple[Dataset, int]:
    """Token ids and the number of the label of each text, and how many texts were cut."""
    texts = [row["text"] for row in rows]
    sequences = classifier.encode_texts(texts)
    num_long = sum(len(sequence) > classifier.max_length for sequence in sequences)
    if num_long:
        print(
            f"{WARNING_PREFIX}{split}: {num_long} of {len(rows)} texts exceed "
            f"classifier.max_length = {classifier.max_length} tokens and are cut there",
            flush=True,
        )
        sequences = classifier.encode_texts(texts, cut=True)
    numbers = [classifier.labels.index(row["label"]) for row in rows]
    return Dataset.from_dict({"input_ids": sequences, "labels": numbers}), num_long


def _collate(rows: list[dict[str, Any]], pad: int) -> dict[str, torch.Tensor]:
    ids, lengths = pad_right([row["input_ids"] for row in rows], pad)
    return {
        "input_ids": ids,
        "attention_mask": (torch.arange(ids.shape[1]) < lengths[:, None]).long(),
        "labels": torch.tensor([row["labels"] for row in rows]),
    }


def _accuracy(prediction: EvalPrediction) -> dict[str, float]:
    return {"accuracy": float((prediction.predictions == prediction.label_ids).mean())}


def _measure(
    folder: Path, device: torch.device, rows: Rows, held_out: Rows, out_dir: Path
) -> figures.Figures:
    """Load the classifier again and let it label the held-out texts; draw, show and keep what
    comes out."""
    classifier = load_sequence_classifier(folder, device)
    logits = classifier.logits(classifier.encode_texts([row["text"] for row in held_out], cut=True))
    probabilities = logits.double().softmax(dim=1).numpy()
    truth = [classifier.labels.index(row["label"]) for row in held_out]
    majority = Counter(row["label"] for row in rows).most_common(1)[0][0]
    measured = figures.measure(
        classifier.labels, truth, probabilities, classifier.labels.index(majority)
    )
    for line in measured.undefined:
        print(f"{WARNING_PREFIX}held out: {line}", flush=True)
    tracking.log_figure(figures.confusion_plot(measured), "confusion_matrix", out_dir)
    curves = figures.precision_recall_plot(classifier.labels, truth, probabilities)
    tracking.log_figure(curves, "precision_recall", out_dir)
    texts = [row["text"] for row in held_out]
    errors = figures.worst_errors(classifier.labels, texts, truth, probabilities, SHOWN_ERRORS)
    tracking.log_table(errors, "worst_errors")
    shown = json.dumps(figures.as_json(measured), indent=2, ensure_ascii=False)
    (folder / FIGURES_FILE).write_text(shown + "\n", encoding="utf-8")
    return measured
