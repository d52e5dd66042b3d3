"""The tokenizer trained from scratch."""

import pytest
from transformers import AutoTokenizer

from stages import tokenizer as stage
from stages.core.artifacts import make_artifact
from stages.core.config import Compute, TokenizerConfig
from stages.core.contracts import TokenizerInputs
from stages.core.errors import UserError
from stages.core.schemas import write_jsonl

TEXT = "The quick brown fox jumps over the lazy dog, and the dog does not mind at all. "
SPECIAL = "<|endoftext|> <|im_start|>user\n<|im_end|>"


def run(root, name, texts=(TEXT * 20, SPECIAL * 50), vocab_size=400):
    documents = root / "documents"
    documents.mkdir(exist_ok=True)
    write_jsonl(documents / "train.jsonl", ({"text": text} for text in texts))
    write_jsonl(documents / "held_out.jsonl", ({"text": text} for text in texts[:1]))
    inputs = TokenizerInputs(documents=make_artifact("documents", documents))
    out_dir = root / name
    out_dir.mkdir()
    return stage.run(TokenizerConfig(vocab_size=vocab_size), inputs, Compute(), out_dir)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("tokenizer")
    outputs, metrics = run(root, "out")
    return AutoTokenizer.from_pretrained(root / "out" / "tokenizer"), outputs, metrics, root


def encode(tokenizer, text):
    return tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]


def test_special_tokens(trained):
    tokenizer, _, metrics, _ = trained
    assert tokenizer.bos_token == tokenizer.pad_token == "<|endoftext|>"
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_start|>", "<|im_end|>"]) == [
        0, 1, 2,
    ]  # fmt: skip
    assert tokenizer.model_max_length > 10**9
    assert len(tokenizer) == metrics["vocab_size"] <= 400
    assert metrics["characters_per_token"] > 2
    assert metrics["bytes_per_token"] >= metrics["characters_per_token"]


@pytest.mark.parametrize(
    "text",
    [
        "Hällo \0 wörld\r\n\t  x\ufeff 12345 <|im_end|>  ",
        "😀🏳️‍🌈 مرحبا 日本語 e\u0301 \u00e9 \U0010ffff",
        SPECIAL,
        " ,  .",
    ],
)
def test_any_text_comes_back_unchanged(trained, text):
    tokenizer = trained[0]
    assert tokenizer.decode(encode(tokenizer, text)) == text
    assert min(encode(tokenizer, text)) > 2


def test_special_tokens_are_not_learned_from_text(trained):
    tokenizer = trained[0]
    words = ("endoftext|", "|endoftext", "im_start|", "|im_start", "im_end|", "|im_end")
    learned = [name for name, number in tokenizer.get_vocab().items() if number > 2]
    assert not [name for name in learned if any(word in name for word in words)]


def test_digits_are_single_tokens(trained):
    assert len(encode(trained[0], "1234567")) == 7


def test_chat_template(trained):
    tokenizer = trained[0]
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hello?"},
        {"role": "assistant", "content": "Hello."},
    ]
    assert tokenizer.apply_chat_template(
        messages[:2], tokenize=False, add_generation_prompt=True
    ) == (
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHello?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    ids = tokenizer.apply_chat_template(messages, return_dict=False)
    assert ids.count(1) == ids.count(2) == 3
    assert 0 not in ids


def test_equal_documents_give_equal_files(trained):
    _, outputs, _, root = trained
    again, _ = run(root, "again")
    assert again.tokenizer.digest == outputs.tokenizer.digest


def test_no_documents_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"train\.jsonl: holds no documents; give collect"):
        run(tmp_path, "out", texts=())
