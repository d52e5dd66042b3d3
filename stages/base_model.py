"""Bring a model: a hub name, a local folder or a GGUF file becomes a model folder of the run."""

import os
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from stages.core import tracking
from stages.core.architecture import check_architecture
from stages.core.artifacts import make_artifact
from stages.core.chat import PLAIN_CHAT_TEMPLATE
from stages.core.config import BaseModelConfig, Compute
from stages.core.contracts import BaseModelInputs, ModelOutputs
from stages.core.errors import UserError
from stages.core.models import first_line, load_tokenizer, save_model


def run(
    config: BaseModelConfig, inputs: BaseModelInputs, compute: Compute, out_dir: Path
) -> tuple[ModelOutputs, dict[str, float]]:
    """Load the model, dequantised if it is a GGUF file, and save it with its tokenizer.

    A tokenizer without chat template gets a plain-text one, so that the template travels with the
    model from here on.

    Raises:
        UserError: the source cannot be read, a hub name has no pinned revision, or the later stages
            could not train the model.
    """
    tracking.report_progress(0, 2)
    where = _from_pretrained_arguments(config, inputs)
    try:
        # Said outright, or a model with code of its own asks on the terminal.
        tokenizer = AutoTokenizer.from_pretrained(**where, trust_remote_code=False)
        tracking.report_progress(1, 2)
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            **where, dtype="auto", trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = first_line(error)
        if "custom code" in reason:
            reason = "it needs code of its own to run, which this pipeline never runs"
        raise UserError(
            f"base_model.source = {config.source}: cannot be loaded: {reason}"
        ) from error
    if tokenizer.chat_template is None:
        tokenizer.chat_template = PLAIN_CHAT_TEMPLATE
    if "gguf_file" in where:  # loaded dequantised, though model and configuration say otherwise
        del model.config.quantization_config
        model.hf_quantizer = None
    if getattr(model.config, "quantization_config", None) is not None:
        raise UserError(
            f"base_model.source = {config.source}: is quantised; give unquantised weights or a GGUF"
        )
    metrics = {
        "num_parameters": float(model.num_parameters()),
        "vocab_size": float(len(tokenizer)),
    }
    folder = out_dir / "model"
    save_model(model, tokenizer, folder)
    check_architecture(model, load_tokenizer(folder))
    tracking.report_progress(2, 2)
    return ModelOutputs(model=make_artifact("model", folder)), metrics


def _from_pretrained_arguments(config: BaseModelConfig, inputs: BaseModelInputs) -> dict[str, str]:
    if inputs.source is None:
        if not config.revision:
            raise UserError(
                f"base_model.source = {config.source} is a hub name (no such file or folder here): "
                "pin it with base_model.revision=<commit>"
            )
        return {"pretrained_model_name_or_path": config.source, "revision": config.revision}
    path = inputs.source.locate()
    if path.is_file():
        return {
            "pretrained_model_name_or_path": os.fspath(path.parent),
            "gguf_file": path.name,
        }
    return {"pretrained_model_name_or_path": os.fspath(path)}
