"""Architectures that the stages can train, and those that are refused before they try."""

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaForSequenceClassification,
)

from stages.core.architecture import check_architecture, classifier_class
from stages.core.errors import UserError

SIZES = {"vocab_size": 512, "hidden_size": 32, "num_hidden_layers": 4, "pad_token_id": 0}
ATTENTION = {
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
}
EXPERTS = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2}


def random_model(model_type, **settings):
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **{**SIZES, **ATTENTION, **settings})
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


@pytest.fixture(scope="module")
def tokenizer(tokenizer_folder):
    return AutoTokenizer.from_pretrained(tokenizer_folder)


@pytest.mark.parametrize(
    ("model_type", "settings"),
    [
        ("llama", {}),
        ("cohere2", {}),
        ("lfm2", {"layer_types": ["conv", "full_attention"] * 2}),
        ("olmoe", EXPERTS),
        ("mixtral", {**EXPERTS, "output_router_logits": True}),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_what_can_be_trained_passes(tokenizer, model_type, settings, dtype):
    check_architecture(random_model(model_type, **settings).to(dtype), tokenizer)


@pytest.mark.parametrize(
    ("model_type", "settings", "reason"),
    [
        ("rwkv", {"context_length": 64}, "sampled tokens are off by 0.* nats"),
        ("minimax", {**EXPERTS, "block_size": 4}, "sampling from it fails .MiniMax uses cache"),
        ("ctrl", {"n_embd": 32, "dff": 64, "n_layer": 4, "n_head": 4}, "has another head"),
        (
            "zamba2",
            {
                "mamba_headdim": 8, "mamba_d_state": 8, "n_mamba_heads": 8, "mamba_ngroups": 1,
                "chunk_size": 8, "layers_block_type": ["mamba", "hybrid"] * 2, "num_mem_blocks": 1,
                "use_mamba_kernels": False,
            },
            "its layers share weights",
        ),
        (
            "falcon_h1",
            {"mamba_d_ssm": 64, "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8},
            "no LoRA adapter for it",
        ),
        ("modernbert-decoder", {}, "list of layers was not found"),
    ],
)  # fmt: skip
def test_the_others_are_refused_in_one_line(tokenizer, model_type, settings, reason):
    model = random_model(model_type, **settings)
    message = rf"^architecture {type(model).__name__} is not supported: .*{reason}.*; take another"
    with pytest.raises(UserError, match=message) as refusal:
        check_architecture(model, tokenizer)
    assert "\n" not in str(refusal.value)


def test_transformers_own_classifier_is_taken_where_there_is_one():
    config = random_model("llama").config
    assert classifier_class(config) is LlamaForSequenceClassification


@pytest.mark.parametrize(
    ("model_type", "settings"),
    [
        ("granite", {}),
        # A family whose configuration is the multimodal model's.
        ("gemma4_text", {
            "layer_types": ["sliding_attention", "full_attention"] * 2, "sliding_window": 4,
            "num_kv_shared_layers": 2, "global_head_dim": 8, "hidden_size_per_layer_input": 8,
            "vocab_size_per_layer_input": 512,
        }),
    ],
)  # fmt: skip
@torch.no_grad()
def test_one_that_is_made_reads_the_models_weights(tmp_path, model_type, settings):
    model = random_model(model_type, **settings)
    model.save_pretrained(tmp_path)
    classifier, loading = classifier_class(model.config).from_pretrained(
        tmp_path, num_labels=1, output_loading_info=True
    )
    assert loading["missing_keys"] == {"score.weight"}
    ids = torch.tensor([[5, 6, 7, 8], [9, 10, 0, 0]])
    hidden = model.get_decoder()(ids).last_hidden_state
    at_the_ends = torch.stack([hidden[0, 3], hidden[1, 1]])
    scores = classifier.eval()(ids).logits
    torch.testing.assert_close(scores, classifier.score(at_the_ends))
