"""``python -m stages.core.lora_round_trip``: does an adapter that is saved come back as it was?

With a pair of peft and transformers that do not fit, it comes back silently as another one.
"""

import sys
import tempfile
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

MAX_DIFFERENCE = 1e-5


def round_trip(folder: Path) -> dict[str, float]:
    """Save a tiny random model and its adapter to ``folder`` and load them again.

    Returns:
        Largest differences of logits from those before: ``adapter`` with the adapter as loaded,
        ``merged`` with the model it was merged into, itself saved and loaded; and ``effect``, how
        much the adapter changes the bare model.
    """
    torch.manual_seed(0)
    base = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=64,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=32,
        )
    ).eval()
    base.save_pretrained(folder / "base")
    tokens = torch.arange(16)[None]
    with torch.no_grad():
        bare = base(tokens).logits
        # Weights that are not zero: a fresh adapter would not change the model.
        lora = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
        adapted = get_peft_model(base, lora).eval()
        expected = adapted(tokens).logits
        adapted.save_pretrained(folder / "adapter")
        loaded = PeftModel.from_pretrained(
            AutoModelForCausalLM.from_pretrained(folder / "base"), folder / "adapter"
        ).eval()
        reloaded = loaded(tokens).logits
        loaded.merge_and_unload().save_pretrained(folder / "merged")
        merged = AutoModelForCausalLM.from_pretrained(folder / "merged").eval()(tokens).logits
    return {
        "adapter": float((reloaded - expected).abs().max()),
        "merged": float((merged - expected).abs().max()),
        "effect": float((expected - bare).abs().max()),
    }


def main() -> int:
    """Print the differences; return 1 where the adapter that was loaded is another one."""
    with tempfile.TemporaryDirectory() as folder:
        found = round_trip(Path(folder))
    print(" ".join(f"{name}={value:.1e}" for name, value in found.items()))
    is_same = max(found["adapter"], found["merged"]) <= MAX_DIFFERENCE < found["effect"]
    return 0 if is_same else 1


if __name__ == "__main__":
    sys.exit(main())
