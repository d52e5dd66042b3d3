"""Models and adapters: loading, saving, padding, and switching adapters without side effects."""

import contextlib
import json
import shutil

import pytest
import torch
from peft import PeftModel, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BertConfig,
    BioGptConfig,
    FalconConfig,
    Gemma3Config,
    GPT2Config,
    Llama4TextConfig,
    LlamaConfig,
    MixtralConfig,
    ModernBertDecoderConfig,
    OPTConfig,
)

from stages.core.artifacts import content_digest, make_artifact
from stages.core.config import Compute, LoRAConfig
from stages.core.errors import UserError
from stages.core.models import (
    active_adapter,
    adapter_parameters,
    check_length,
    check_same_tokenizer,
    load_model,
    load_tokenizer,
    max_positions,
    merged_adapter,
    padding_id,
    peft_config,
    pick_device,
    save_adapter,
    save_model,
    supports_bf16,
    tokenizer_digest,
    transformer_layers,
)

CPU = torch.device("cpu")
IDS = torch.tensor([[5, 6, 7, 8, 9]])


@pytest.fixture
def tokenizer(tokenizer_folder):
    return AutoTokenizer.from_pretrained(tokenizer_folder)


@pytest.fixture
def adapted(tiny_model_folder):
    """The tiny model with two adapters that do something: policy and value."""
    config = peft_config(LoRAConfig(rank=4, alpha=8))
    model = get_peft_model(load_model(tiny_model_folder, CPU), config, adapter_name="policy")
    model.add_adapter("value", config)
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # zeros at first
            torch.nn.init.normal_(parameter, std=0.3)
        if "lora_" in name:
            parameter.requires_grad_(True)
    return model


@torch.no_grad()
def logits(model):
    return model(IDS).logits


def flags(model):
    return {name: parameter.requires_grad for name, parameter in model.named_parameters()}


# -------------------------------------------------------------------------------- active_adapter


def test_each_name_routes_to_its_adapter_and_none_to_the_bare_model(adapted, tiny_model_folder):
    outputs = {}
    for name in ("policy", "value", None):
        with active_adapter(adapted, name):
            outputs[name] = logits(adapted)
    assert torch.equal(outputs[None], logits(load_model(tiny_model_folder, CPU)))
    for one, other in (("policy", "value"), ("policy", None), ("value", None)):
        assert not torch.allclose(outputs[one], outputs[other], atol=1e-2)


def test_the_routing_equals_pefts_own(adapted):
    for name in ("policy", "value"):
        with active_adapter(adapted, name):
            ours = logits(adapted)
        adapted.set_adapter(name)
        assert torch.equal(ours, logits(adapted))


def test_the_routing_before_is_restored(adapted):
    before = logits(adapted)
    with active_adapter(adapted, "value"):
        with active_adapter(adapted, None):
            pass
        inner = logits(adapted)
    assert torch.equal(logits(adapted), before)
    assert not torch.allclose(inner, before, atol=1e-2)


def test_the_routing_is_restored_after_an_exception(adapted):
    before = logits(adapted)
    with pytest.raises(RuntimeError, match="out of memory"), active_adapter(adapted, None):
        raise RuntimeError("out of memory")
    assert torch.equal(logits(adapted), before)


def test_which_parameters_train_is_left_alone(adapted):
    before = flags(adapted)
    assert any(before.values())
    for name in ("value", None, "policy"):
        with active_adapter(adapted, name):
            assert flags(adapted) == before
    assert flags(adapted) == before


def test_an_unknown_adapter_is_an_error_and_not_the_bare_model(adapted):
    is_refused = pytest.raises(KeyError, match="no adapter 'polcy'; there are policy, value")
    with is_refused, active_adapter(adapted, "polcy"):
        pass


@pytest.mark.parametrize("experts", [False, True])
@torch.no_grad()
def test_a_merged_adapter_is_the_adapter_and_goes_again_without_a_trace(
    adapted, tiny_model_folder, experts
):
    if experts:  # one tensor for all of them, beside which PEFT puts what is no layer
        torch.manual_seed(0)
        config = MixtralConfig(
            vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, num_local_experts=4,
        )  # fmt: skip
        adapted = get_peft_model(
            AutoModelForCausalLM.from_config(config).eval(),
            peft_config(LoRAConfig(rank=4, alpha=8), init_lora_weights=False),
            adapter_name="policy",
        )
        assert any("experts" in name for name, _ in adapted.named_parameters() if "lora_B" in name)
    with active_adapter(adapted, None):
        bare = logits(adapted)
    with active_adapter(adapted, "policy"):
        beside = logits(adapted)
    with merged_adapter(adapted, "policy"):
        torch.testing.assert_close(logits(adapted), beside, rtol=1e-4, atol=1e-4)
    with active_adapter(adapted, None):
        assert torch.equal(logits(adapted), bare)
    assert not torch.allclose(beside, bare, atol=1e-2)


def joint_gradients(model, switch):
    """Sizes of both adapters' gradients after one backward pass through both."""
    losses = []
    for name in ("policy", "value"):
        with switch(model, name):
            losses.append(model(IDS).logits.square().mean())
    sum(losses).backward()
    return {
        name: sum(
            float(parameter.grad.abs().sum())
            for parameter in adapter_parameters(model, name)
            if parameter.grad is not None
        )
        for name in ("policy", "value")
    }


def test_two_adapters_get_gradients_from_one_backward_pass(adapted):
    gradients = joint_gradients(adapted, active_adapter)
    assert gradients["policy"] > 0
    assert gradients["value"] > 0


def test_with_pefts_set_adapter_the_first_of_two_gets_no_gradient(adapted):
    """Why ``active_adapter`` exists. Where this fails, PEFT was mended and ours may go."""

    @contextlib.contextmanager
    def set_adapter(model, name):
        model.set_adapter(name)
        yield

    gradients = joint_gradients(adapted, set_adapter)
    assert gradients["value"] > 0
    assert gradients["policy"] == 0


def test_adapter_parameters_are_those_of_one_adapter(adapted):
    policy, value = (adapter_parameters(adapted, name) for name in ("policy", "value"))
    # 7 linear layers in each of 2 blocks, matrices A and B.
    assert len(policy) == len(value) == 2 * 7 * 2
    assert not {id(parameter) for parameter in policy} & {id(parameter) for parameter in value}


# ---------------------------------------------------------------------------------- save and load


def test_a_saved_adapter_loads_with_plain_peft_and_gives_equal_logits(
    adapted, tiny_model_folder, tmp_path
):
    save_adapter(adapted, "value", make_artifact("model", tiny_model_folder), tmp_path / "value")
    plain = PeftModel.from_pretrained(load_model(tiny_model_folder, CPU), tmp_path / "value").eval()
    with active_adapter(adapted, "value"):
        assert torch.equal(logits(plain), logits(adapted))


def test_an_adapter_is_saved_with_its_base(adapted, tiny_model_folder, tmp_path):
    base = make_artifact("model", tiny_model_folder)
    save_adapter(adapted, "policy", base, tmp_path)
    assert json.loads((tmp_path / "base.json").read_text()) == base.model_dump()
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == base.path
    assert config["inference_mode"] is True


def test_equal_adapters_are_equal_files(adapted, tiny_model_folder, tmp_path):
    base = make_artifact("model", tiny_model_folder)
    for name in ("one", "two"):
        save_adapter(adapted, "policy", base, tmp_path / name)
    assert content_digest(tmp_path / "one") == content_digest(tmp_path / "two")


def test_equal_models_are_equal_files_wherever_they_came_from(
    tiny_model_folder, tokenizer_folder, tmp_path
):
    tokenizer = load_tokenizer(tokenizer_folder)
    for name in ("one", "two"):
        source = tmp_path / f"source-{name}"
        shutil.copytree(tiny_model_folder, source)
        save_model(load_model(source, CPU), tokenizer, tmp_path / name)
    assert content_digest(tmp_path / "one") == content_digest(tmp_path / "two")
    assert torch.equal(
        logits(load_model(tmp_path / "one", CPU)), logits(load_model(tiny_model_folder, CPU))
    )


def test_a_model_is_saved_in_the_precision_that_it_has(tiny_model_folder, tmp_path):
    model, tokenizer = load_model(tiny_model_folder, CPU), load_tokenizer(tiny_model_folder)
    save_model(model.to(torch.bfloat16), tokenizer, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
    assert load_model(tmp_path, CPU).dtype == torch.float32  # training is in float32


HEADS = {"vocab_size": 512, "hidden_size": 32, "num_attention_heads": 4}
DROPOUT = [
    LlamaConfig(**HEADS, num_hidden_layers=1, intermediate_size=64, attention_dropout=0.5),
    GPT2Config(**HEADS, n_layer=1, resid_pdrop=0.1, embd_pdrop=0.1, attn_pdrop=0.1),
    OPTConfig(
        **HEADS,
        num_hidden_layers=2,
        ffn_dim=64,
        word_embed_proj_dim=32,
        dropout=0.1,
        attention_dropout=0.1,
        layerdrop=0.5,
    ),
    FalconConfig(**HEADS, num_hidden_layers=1, hidden_dropout=0.1, attention_dropout=0.1),
    BioGptConfig(
        **HEADS,
        num_hidden_layers=2,
        intermediate_size=64,
        hidden_dropout_prob=0.1,
        attention_probs_dropout_prob=0.1,
        activation_dropout=0.1,
        layerdrop=0.5,
    ),
]


@pytest.mark.parametrize("config", DROPOUT, ids=lambda config: config.model_type)
def test_a_loaded_model_has_no_dropout_even_while_it_trains(config, tokenizer_folder, tmp_path):
    torch.manual_seed(0)
    made = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    made.train()
    assert not torch.equal(logits(made), logits(made))
    save_model(made, load_tokenizer(tokenizer_folder), tmp_path)
    model = load_model(tmp_path, CPU)
    assert not model.training
    evaluated = logits(model).log_softmax(-1)
    model.train()
    torch.testing.assert_close(logits(model).log_softmax(-1), evaluated)


@pytest.mark.parametrize("damage", ["no config", "cut weights", "no weights", "other shapes"])
def test_a_damaged_model_folder_is_refused(tiny_model_folder, tmp_path, damage):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model_folder, folder)
    weights = folder / "model.safetensors"
    if damage == "no config":
        (folder / "config.json").unlink()
    elif damage == "cut weights":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "no weights":
        weights.unlink()
    else:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 48}))
    with pytest.raises(UserError, match="no usable model") as refusal:
        load_model(folder, CPU)
    assert "\n" not in str(refusal.value)


# ------------------------------------------------------------------------------------- tokenizers


def test_a_folder_without_tokenizer_is_refused(tmp_path):
    with pytest.raises(UserError, match="no usable tokenizer") as refusal:
        load_tokenizer(tmp_path)
    assert "\n" not in str(refusal.value)


def test_a_tokenizer_without_eos_is_refused(tokenizer, tmp_path):
    tokenizer.eos_token = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="has no eos_token; set one in its configuration"):
        load_tokenizer(tmp_path)


def test_the_tokenizers_own_padding_is_kept_where_it_is_not_eos(tokenizer):
    assert padding_id(tokenizer) == tokenizer.pad_token_id != tokenizer.eos_token_id


@pytest.mark.parametrize("special", ["<|im_end|>", "<|endoftext|>"])
def test_padding_is_never_eos(tokenizer, special):
    """As in models with one special token for everything, which may have number 0."""
    for name in ("pad_token", "eos_token", "bos_token", "unk_token"):
        setattr(tokenizer, name, special)
    assert padding_id(tokenizer) != tokenizer.eos_token_id
    assert 0 <= padding_id(tokenizer) < len(tokenizer)


def test_padding_where_the_only_special_token_has_number_zero():
    """Pythia's: <|endoftext|> is token 0 and stands for everything."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordLevel({"<|endoftext|>": 0, "a": 1}, unk_token="<|endoftext|>"))
    end = "<|endoftext|>"
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=end, eos_token=end, unk_token=end
    )
    assert (tokenizer.eos_token_id, padding_id(tokenizer)) == (0, 1)


def test_the_digest_of_a_tokenizer_survives_saving_and_use(tokenizer, tmp_path):
    digest = tokenizer_digest(tokenizer)
    tokenizer(["a", "b c"], padding=True, truncation=True, max_length=4)
    assert tokenizer_digest(tokenizer) == digest
    tokenizer.save_pretrained(tmp_path)
    assert tokenizer_digest(load_tokenizer(tmp_path)) == digest


def test_template_and_special_tokens_count_in_the_digest(tokenizer):
    digest = tokenizer_digest(tokenizer)
    check_same_tokenizer(tokenizer, digest, "the base model")
    tokenizer.chat_template += " "
    with pytest.raises(UserError, match="differs from the one of the base model"):
        check_same_tokenizer(tokenizer, digest, "the base model")
    tokenizer.chat_template = tokenizer.chat_template[:-1]
    assert tokenizer_digest(tokenizer) == digest
    tokenizer.eos_token = "<|endoftext|>"
    assert tokenizer_digest(tokenizer) != digest


# -------------------------------------------------------------------------------- devices, lengths


def test_the_device_is_what_was_asked_for_or_a_refusal():
    assert pick_device(Compute(device="cpu")) == CPU
    if torch.cuda.is_available():
        assert pick_device(Compute()).type == "cuda"
    else:
        assert pick_device(Compute()) == CPU
        with pytest.raises(UserError, match=r"torch sees no GPU; set compute\.device=auto"):
            pick_device(Compute(device="cuda"))


def test_emulated_bf16_does_not_count(monkeypatch):
    """A V100 has none, and torch emulates it there."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation=True: including_emulation,
    )
    assert not supports_bf16(torch.device("cuda"))


def test_sequences_longer_than_the_model_are_refused(tiny_model_folder):
    model = load_model(tiny_model_folder, CPU)
    assert max_positions(model) == 256
    check_length(model, 256, "sft.max_length")
    with pytest.raises(UserError) as refusal:
        check_length(model, 257, "sft.max_length")
    assert str(refusal.value) == "sft.max_length = 257 exceeds the model's 256 positions; lower it"


def test_a_multimodal_model_has_the_positions_of_its_text_part():
    config = Gemma3Config(
        text_config={
            "vocab_size": 60,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 1,
            "max_position_embeddings": 64,
        },
    )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert max_positions(model) == 64


# ----------------------------------------------------------------------------------------- layers

PARTS = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


@pytest.mark.parametrize(
    "config",
    [
        BertConfig(**PARTS, is_decoder=True),
        ModernBertDecoderConfig(**PARTS),
        Llama4TextConfig(**PARTS),
    ],
    ids=lambda config: config.model_type,
)
def test_an_architecture_whose_layers_are_not_found_is_refused_by_name(config):
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    with pytest.raises(UserError) as refusal:
        transformer_layers(model)
    assert str(refusal.value).startswith(f"architecture {type(model).__name__} is not supported: ")
