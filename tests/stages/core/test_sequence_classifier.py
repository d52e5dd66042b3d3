"""Classifiers that people bring: their own scores, whatever the batch, and clear refusals."""

import json

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
)

from stages.core.errors import UserError
from stages.core.models import load_tokenizer
from stages.core.scorers import load_scorer

CPU = torch.device("cpu")
PROMPTS, REPLIES = ["What is it?", "And that?"], ["A door.", "Nobody knows."]
DIALOGUE = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What\nis it?"},
]


def refusal(call, *arguments) -> str:
    with pytest.raises(UserError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def tokenizer(tokenizer_folder):
    return load_tokenizer(tokenizer_folder)


def load(folder, tokenizer, label=""):
    place = f"my/folder{label and ':'}{label}"
    return load_scorer(place, folder, CPU, tokenizer=tokenizer, normalize=True)


ENDS_IN_EOS = "{% for message in messages %}{{ message.content }}{{ eos_token }}{% endfor %}"
ENDS_IN_PAD = "{% for message in messages %}{{ message.content }}<|endoftext|>{% endfor %}"


@pytest.fixture
def make_classifier(tokenizer_folder, tmp_path):
    """A function that writes a tiny Llama classifier and returns its folder."""

    def make(template="", model_class=LlamaForSequenceClassification, **changes):
        tokenizer = load_tokenizer(tokenizer_folder)
        if template != "":
            tokenizer.chat_template = template
        settings = {
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 256,
            "initializer_range": 0.3,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        }
        if "id2label" not in changes:
            settings["num_labels"] = 1
        config_class = BertConfig if "Bert" in model_class.__name__ else LlamaConfig
        torch.manual_seed(0)
        model = model_class(config_class(**(settings | changes)))
        folder = tmp_path / "classifier"
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return make


def native_scores(folder, texts):
    """Each text by itself, unpadded, through transformers' own forward."""
    tokenizer = load_tokenizer(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    scores = []
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            scores.append(float(model(input_ids=ids).logits[0, 0]))
    return scores


@pytest.mark.parametrize("pad", ["own", "eos", None])
@pytest.mark.parametrize(
    "template", ["", ENDS_IN_EOS, ENDS_IN_PAD], ids=["ChatML", "ends in EOS", "ends in padding"]
)
def test_a_classifier_scores_in_batches_as_it_does_one_by_one(
    make_classifier, tokenizer, template, pad, capsys
):
    pads = {"own": tokenizer.pad_token_id, "eos": tokenizer.eos_token_id, None: None}
    folder = make_classifier(template, pad_token_id=pads[pad])
    own_tokenizer = load_tokenizer(folder)
    prompts = [*PROMPTS, DIALOGUE, "Why?"]
    replies = [*REPLIES, "A door. " * 20, ""]
    texts = [
        own_tokenizer.apply_chat_template(
            [
                *([{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt),
                {"role": "assistant", "content": reply},
            ],
            tokenize=False,
        )
        for prompt, reply in zip(prompts, replies, strict=True)
    ]
    scores = load(folder, tokenizer)(prompts, replies)
    assert scores == pytest.approx(native_scores(folder, texts), abs=1e-5)
    assert len({round(score, 3) for score in scores}) == 4
    assert capsys.readouterr().out == ""


def test_without_a_chat_template_prompt_and_reply_are_joined(make_classifier, tokenizer, capsys):
    folder = make_classifier(None, pad_token_id=None)
    score = load(folder, tokenizer)
    texts = [f"{prompt}\n{reply}" for prompt, reply in zip(PROMPTS, REPLIES, strict=True)]
    assert score(PROMPTS, REPLIES) == pytest.approx(native_scores(folder, texts), abs=1e-5)
    assert capsys.readouterr().out == (
        "scorer my/folder: its tokenizer has no chat template; the text of the prompt and the "
        "reply are joined by a newline\n"
    )


def test_a_bidirectional_classifier_does_not_see_padding(make_classifier, tokenizer):
    folder = make_classifier(None, BertForSequenceClassification)
    replies = ["A door. " * 20, "No."]
    texts = [f"{prompt}\n{reply}" for prompt, reply in zip(PROMPTS, replies, strict=True)]
    score = load(folder, tokenizer)
    assert score(PROMPTS, replies) == pytest.approx(native_scores(folder, texts), abs=1e-5)


def test_special_tokens_written_out_in_a_text_stay_text(make_classifier, tokenizer):
    score = load(make_classifier(), tokenizer)
    reply = "<|im_end|>\n<|im_start|>user\nGreat!"
    broken_up = reply.replace("<|", "< |")
    assert score(["Hi"], [reply]) == score(["Hi"], [broken_up])


def test_a_template_that_refuses_a_role_is_named_with_the_prompt(make_classifier, tokenizer):
    template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    )
    score = load(make_classifier(template + ENDS_IN_EOS), tokenizer)
    assert refusal(score, [*PROMPTS, DIALOGUE], [*REPLIES, "A door."]) == (
        "scorer my/folder: TemplateError: no system role, on the reply to "
        "'system: Be brief. user: What is it?'; mend it, then the same command continues the run"
    )


def test_over_long_texts_are_counted_and_the_first_is_named(make_classifier, tokenizer):
    score = load(make_classifier(None, max_position_embeddings=32), tokenizer)
    replies = ["A door.", "no" * 100]
    longest = len(tokenizer(f"{PROMPTS[1]}\n{replies[1]}")["input_ids"])
    assert refusal(score, PROMPTS, replies) == (
        f"scorer my/folder: 1 of 2 texts exceed its 32 tokens (the longest has {longest}); shorten "
        "prompts and replies or take a scorer that reads more, on the reply to 'And that?'; "
        "mend it, then the same command continues the run"
    )


LABELS = {0: "toxic", 1: "civil", 2: "-1"}


def native_logits(folder, texts):
    """Each text by itself, unpadded, through transformers' own forward."""
    tokenizer = load_tokenizer(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    rows = [tokenizer(text, return_tensors="pt")["input_ids"] for text in texts]
    with torch.no_grad():
        return torch.cat([model(input_ids=ids).logits for ids in rows]).double()


@pytest.mark.parametrize(("label", "output", "sign"), [("civil", 1, 1), ("-toxic", 0, -1)])
@pytest.mark.parametrize("pad", ["own", None])
@pytest.mark.parametrize(
    "model_class", [LlamaForSequenceClassification, BertForSequenceClassification]
)
def test_a_label_scores_by_its_log_odds_for_the_reply_alone(
    make_classifier, tokenizer, model_class, pad, label, output, sign
):
    pad_token_id = tokenizer.pad_token_id if pad else None
    folder = make_classifier("", model_class, id2label=LABELS, pad_token_id=pad_token_id)
    replies = [*REPLIES, "A door. " * 20]
    p = native_logits(folder, replies).softmax(dim=1)[:, output]
    expected = sign * (p.log() - (1 - p).log())
    score = load(folder, tokenizer, label)
    assert score(["Hi", "Why?", "a"], replies) == pytest.approx(expected.tolist(), abs=1e-4)
    assert score(["b"] * 3, replies) == score(["Hi", "Why?", "a"], replies)


def test_a_sure_classifier_still_has_finite_log_odds(make_classifier, tokenizer):
    folder = make_classifier(id2label=LABELS)
    model = LlamaForSequenceClassification.from_pretrained(folder)
    model.score.weight.data *= 1000
    model.save_pretrained(folder)
    logits = native_logits(folder, REPLIES)
    assert logits.softmax(dim=1).max() == 1.0  # p / (1 - p) would be infinite
    others = logits[:, 1:].logsumexp(dim=1)
    scores = load(folder, tokenizer, "toxic")(PROMPTS, REPLIES)
    assert scores == pytest.approx((logits[:, 0] - others).tolist(), rel=1e-4)


def test_labels_that_may_occur_together_have_odds_of_their_own(make_classifier, tokenizer):
    folder = make_classifier(id2label=LABELS, problem_type="multi_label_classification")
    expected = native_logits(folder, REPLIES)[:, 1].tolist()
    assert load(folder, tokenizer, "civil")(PROMPTS, REPLIES) == pytest.approx(expected, abs=1e-4)


def test_a_label_that_begins_with_a_hyphen_is_no_negative(make_classifier, tokenizer):
    folder = make_classifier(id2label=LABELS)
    score, negative = load(folder, tokenizer, "-1"), load(folder, tokenizer, "--1")
    assert score(PROMPTS, REPLIES) == [-value for value in negative(PROMPTS, REPLIES)]


@pytest.mark.parametrize(
    "model_class", [LlamaForSequenceClassification, BertForSequenceClassification]
)
def test_an_empty_reply_has_a_score_and_special_tokens_are_text(
    make_classifier, tokenizer, model_class
):
    score = load(make_classifier("", model_class, id2label=LABELS), tokenizer, "toxic")
    together = score(["Hi"] * 3, ["", "A door.", "<|im_end|>"])
    assert score(["Hi"], [""]) == pytest.approx(together[:1], abs=1e-5)
    assert score(["Hi"], ["< |im_end|>"]) == pytest.approx(together[2:], abs=1e-5)


@pytest.mark.parametrize(
    ("label", "message"),
    [("", "has 3 labels; name one of"), ("rude", "has no label 'rude'; name one of")],
)
def test_a_label_that_is_missing_or_unknown_is_refused(make_classifier, tokenizer, label, message):
    folder = make_classifier(id2label=LABELS)
    assert refusal(load, folder, tokenizer, label) == (
        f"scorer my/folder{label and ':'}{label}: {folder}: the classifier {message} toxic, civil, "
        "-1 behind the folder: FOLDER:toxic is scored by that label's log-odds, FOLDER:-toxic by "
        "their negative"
    )


def test_a_single_output_has_no_label_to_choose(make_classifier, tokenizer):
    folder = make_classifier()
    assert "has a single output, the score: name its folder alone" in (
        refusal(load, folder, tokenizer, "toxic")
    )


def test_a_classifier_without_its_tokenizer_is_refused(make_classifier, tokenizer):
    folder = make_classifier(model_class=BertForSequenceClassification)
    for path in folder.glob("tokenizer*"):
        path.unlink()
    assert refusal(load, folder, tokenizer) == (
        f"scorer my/folder: {folder}: no tokenizer beside the model; save it into that folder"
    )


def test_a_missing_head_is_refused(make_classifier, tokenizer):
    folder = make_classifier(model_class=LlamaForCausalLM, tie_word_embeddings=True)
    config = json.loads((folder / "config.json").read_text())
    config |= {"architectures": ["LlamaForSequenceClassification"], "id2label": {"0": "score"}}
    (folder / "config.json").write_text(json.dumps(config))
    assert refusal(load, folder, tokenizer) == (
        f"scorer my/folder: {folder}: weights are missing: score.weight"
    )


def test_damaged_weights_are_refused(make_classifier, tokenizer):
    folder = make_classifier()
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    assert refusal(load, folder, tokenizer).startswith("scorer my/folder: SafetensorError: ")


def test_a_classifier_that_gives_nan_is_refused_with_the_prompt(make_classifier, tokenizer):
    folder = make_classifier()
    model = LlamaForSequenceClassification.from_pretrained(folder)
    torch.nn.init.constant_(model.score.weight, float("nan"))
    model.save_pretrained(folder)
    assert refusal(load(folder, tokenizer), PROMPTS, REPLIES) == (
        "scorer my/folder: returned nan for the reply to 'What is it?'; it must return one finite "
        "number for each; mend it, then the same command continues the run"
    )
