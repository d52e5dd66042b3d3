"""The classifier's stage: what it learns and keeps, whatever it starts from, and refusals."""

import json
import random
import shutil
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForMaskedLM,
    BertTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    TrainerCallback,
)

from stages import classifier
from stages.core.artifacts import CHECKPOINTS, folder_files, make_artifact
from stages.core.config import ClassifierConfig, Compute
from stages.core.contracts import ClassifierInputs
from stages.core.errors import UserError
from stages.core.models import load_tokenizer
from stages.core.sequence_classifier import load_sequence_classifier

CPU = torch.device("cpu")
COMPUTE = Compute(device="cpu", micro_batch_size=8)
NAMES = ["Bram", "Runa", "Kelm", "Osric", "Tilda", "Marek", "Falk", "Cora", "Petra", "Orla"]
PIECES = {
    "civil": ["Gladly", "Thank you", "Have a nice day", "You are welcome"],
    "rude": ["Go away", "Leave me alone", "What a silly question", "Find it out yourself"],
}
ROWS = [
    {"text": f"{name} is a {job}. {piece}!", "label": label}
    for name in NAMES
    for job in ("baker", "sailor")
    for label, pieces in PIECES.items()
    for piece in pieces
]
random.Random(0).shuffle(ROWS)
TRAIN, HELD_OUT = ROWS[:128], ROWS[128:]


def config(**changes) -> ClassifierConfig:
    settings = {
        "global_batch_size": 16,
        "num_epochs": 4,
        "learning_rate": 5e-3,
        "eval_steps": 8,
        "save_steps": 8,
        "max_length": 32,
    }
    return ClassifierConfig.model_validate(settings | changes)


def run(folder, make_dataset, out_dir, *, train=TRAIN, held_out=HELD_OUT, **changes):
    out_dir.mkdir(exist_ok=True)
    inputs = ClassifierInputs(
        model=make_artifact("model", folder), labelled=make_dataset("labelled", train, held_out)
    )
    outputs, metrics = classifier.run(config(**changes), inputs, COMPUTE, out_dir)
    return outputs.classifier.locate(), metrics


@pytest.fixture(scope="module")
def bert_folder(tmp_path_factory):
    """A random BERT as masked language modelling leaves it: no pooler, no EOS token."""
    words = sorted({word.lower() for row in ROWS for word in row["text"].strip("!").split()})
    words = [word.strip(".") for word in words]
    folder = tmp_path_factory.mktemp("bert")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "!", ".", *sorted(set(words))]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    tokenizer = BertTokenizer(vocab=str(folder / "vocab.txt"))
    torch.manual_seed(0)
    model = BertForMaskedLM(
        BertConfig(
            vocab_size=len(vocabulary),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=64,
        )
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def gpt2_folder(tokenizer_folder, tmp_path_factory):
    """A random GPT-2, whose tokenizer has no padding token but EOS."""
    tokenizer = load_tokenizer(tokenizer_folder)
    tokenizer.pad_token = None
    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=4, n_positions=64)
    )
    folder = tmp_path_factory.mktemp("gpt2")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def trained(tiny_model_folder, make_dataset, tmp_path_factory):
    """The folder, the metrics and the stage's folder of one run from a language model."""
    out_dir = tmp_path_factory.mktemp("classifier")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RLHF_DATA_ROOT", str(out_dir))
        return *run(tiny_model_folder, make_dataset, out_dir), out_dir


@pytest.mark.slow
def test_it_learns_to_tell_the_labels_apart(trained):
    folder, metrics, out_dir = trained
    assert metrics["accuracy"] >= 0.9
    assert metrics["accuracy_low"] < metrics["accuracy"]
    assert 0.3 < metrics["majority_accuracy"] < 0.7
    assert metrics["average_precision_rude"] > 0.9
    assert metrics["macro_f1"] >= 0.9
    assert metrics["held_out_loss"] < 0.4
    written = json.loads((folder / "figures.json").read_text())
    assert written["by_label"]["f1"]["rude"] == metrics["f1_rude"]
    plots = sorted(path.name for path in (out_dir / "plots").iterdir())
    assert plots == ["confusion_matrix.png", "precision_recall.png"]


@pytest.mark.slow
def test_the_folder_is_a_classifier_of_transformers(trained):
    folder = trained[0]
    assert (folder / "model.safetensors").is_file()
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    assert model.config.id2label == {0: "civil", 1: "rude"}
    assert model.config.problem_type == "single_label_classification"
    tokenizer = load_tokenizer(folder)
    assert tokenizer.model_max_length == 32
    loaded = load_sequence_classifier(folder, CPU)
    odds = loaded.log_odds(loaded.encode_texts(["Go away!", "Thank you!"]), "rude")
    assert odds[0] > 0 > odds[1]
    ids = tokenizer("Go away!", return_tensors="pt")["input_ids"]
    p = model(input_ids=ids).logits.softmax(dim=1)[0, 1].item()
    assert torch.tensor(odds[0]).sigmoid().item() == pytest.approx(p, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("start", ["bert_folder", "gpt2_folder"])
def test_encoders_and_models_without_padding_learn_as_well(start, make_dataset, tmp_path, request):
    folder, metrics = run(request.getfixturevalue(start), make_dataset, tmp_path / "out")
    assert metrics["accuracy"] >= 0.9
    loaded = load_sequence_classifier(folder, CPU)
    texts = [row["text"] for row in HELD_OUT[:6]] + ["Go away!" * 8]
    together = loaded.logits(loaded.encode_texts(texts))
    alone = torch.cat([loaded.logits(loaded.encode_texts([text])) for text in texts])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_a_classifier_with_other_labels_may_be_the_start(trained, make_dataset, tmp_path):
    def relabelled(rows):
        names = {"civil": "0", "rude": "2"}
        return [
            {**row, "label": "1" if row["text"].startswith("Bram") else names[row["label"]]}
            for row in rows
        ]

    folder, metrics = run(
        trained[0],
        make_dataset,
        tmp_path / "out",
        train=relabelled(TRAIN),
        held_out=relabelled(HELD_OUT),
        num_epochs=1,
    )
    assert metrics["num_labels"] == 3
    assert json.loads((folder / "config.json").read_text())["label2id"] == {"0": 0, "1": 1, "2": 2}


class Kill(TrainerCallback):
    """Ends the training as a kill would: without a word to the Trainer."""

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 13:
            raise KeyboardInterrupt


@pytest.mark.slow
def test_a_continued_run_equals_the_straight_one_bit_for_bit(
    bert_folder, make_dataset, tmp_path, monkeypatch, capsys
):
    """With the dropout that BERT brings."""
    settings = {"num_epochs": 2, "early_stopping_patience": 2}
    straight, metrics = run(bert_folder, make_dataset, tmp_path / "a", **settings)
    original = classifier.train

    def killed(trainer, out_dir):
        trainer.add_callback(Kill())
        original(trainer, out_dir)

    with monkeypatch.context() as patch:
        patch.setattr(classifier, "train", killed)
        with pytest.raises(KeyboardInterrupt):
            run(bert_folder, make_dataset, tmp_path / "b", **settings)
    assert (tmp_path / "b" / CHECKPOINTS / "checkpoint-8").is_dir()
    continued, continued_metrics = run(bert_folder, make_dataset, tmp_path / "b", **settings)
    assert "continuing from checkpoint-8" in capsys.readouterr().out
    assert folder_files(continued) == folder_files(straight)
    assert continued_metrics == metrics


@pytest.mark.slow
def test_early_stopping_keeps_the_best_model(tiny_model_folder, make_dataset, tmp_path):
    wrong = [{**row, "label": "rude" if row["label"] == "civil" else "civil"} for row in HELD_OUT]
    _, metrics = run(
        tiny_model_folder,
        make_dataset,
        tmp_path / "out",
        held_out=wrong,
        early_stopping_patience=1,
        eval_steps=2,
        save_steps=2,
    )
    assert metrics["steps"] < 32
    assert metrics["held_out_loss"] < 2


@pytest.mark.slow
def test_long_texts_are_cut_and_rare_labels_named(
    tiny_model_folder, make_dataset, tmp_path, capsys
):
    train = [*TRAIN[:16], {"text": "word " * 100, "label": "unseen"}]
    _, metrics = run(tiny_model_folder, make_dataset, tmp_path / "out", train=train, num_epochs=1)
    out = capsys.readouterr().out
    assert (
        "warning: train: 1 of 17 texts exceed classifier.max_length = 32 tokens and are cut there"
    ) in out
    assert (
        "warning: held out: no text has the label 'unseen': no recall, F1 and average precision "
        "of it"
    ) in out
    assert metrics["over_length"] == 1
    assert "recall_unseen" not in metrics


def test_a_cut_text_keeps_the_tokens_that_frame_it(bert_folder):
    inputs = ClassifierInputs(
        model=make_artifact("model", bert_folder), labelled=make_artifact("labelled", bert_folder)
    )
    start = classifier.load_start(config(max_length=8), inputs, ["civil", "rude"])
    rows = [{"text": "Bram is a baker. " * 9, "label": "rude"}, {"text": "Go!", "label": "civil"}]
    data, num_long = classifier.tokenize("train", rows, start)
    assert num_long == 1
    assert data["labels"] == [1, 0]
    assert [len(ids) for ids in data["input_ids"]] == [8, 4]
    ends = [start.tokenizer.cls_token_id, start.tokenizer.sep_token_id]
    assert [[ids[0], ids[-1]] for ids in data["input_ids"]] == [ends, ends]


# ------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("train", "held_out", "message"),
    [
        (
            [{"text": "a", "label": "civil"}] * 2,
            HELD_OUT,
            "all 2 training texts are labelled 'civil'; a classifier needs texts of two labels",
        ),
        (TRAIN, [], "no held-out texts, on which the classifier is measured"),
        (
            TRAIN,
            [*HELD_OUT, {"text": "a", "label": "odd"}, {"text": "b", "label": "odd"}],
            r"held-out texts have labels that no training text has: 'odd' \(2\); training has "
            "'civil', 'rude'; give",
        ),
    ],
)
def test_labels_that_make_no_classifier_are_refused(train, held_out, message):
    with pytest.raises(UserError, match=message):
        classifier.find_labels(train, held_out)


def refusal(folder, **changes) -> str:
    model = make_artifact("model", folder) if folder else None
    inputs = ClassifierInputs(model=model, labelled=make_artifact("labelled", Path(__file__)))
    with pytest.raises(UserError) as caught:
        classifier.load_start(config(**changes), inputs, ["civil", "rude"])
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_length_beyond_the_models_positions_is_refused(bert_folder):
    assert refusal(bert_folder, max_length=65) == (
        f"classifier.max_length = 65 exceeds the 64 tokens that {bert_folder} takes; lower it"
    )


def test_a_start_that_cannot_be_loaded_is_refused(bert_folder, tmp_path):
    assert "no tokenizer beside the model" in refusal(tmp_path)
    folder = shutil.copytree(bert_folder, tmp_path / "damaged")
    (folder / "model.safetensors").write_bytes(b"no weights")
    assert refusal(folder).startswith(f"classifier: {folder} cannot be loaded: ")
    (folder / "config.json").write_text('{"model_type": "whisper"}')
    assert "cannot be loaded: " in refusal(folder)


def test_a_start_that_lacks_weights_of_its_backbone_is_refused(bert_folder, tmp_path):
    folder = shutil.copytree(bert_folder, tmp_path / "more-layers")
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"num_hidden_layers": 3}))
    assert f"{folder} lacks weights of its backbone: bert.encoder.layer.2." in refusal(folder)


def test_a_hub_name_must_be_pinned():
    assert refusal(None, source="owner/name") == (
        "classifier.source = owner/name is a hub name (no such file or folder here): pin it with "
        "classifier.revision=<commit>"
    )
    # Offline, as all tests are.
    assert "owner/name cannot be loaded: " in refusal(None, source="owner/name", revision="a" * 40)
