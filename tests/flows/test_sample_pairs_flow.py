"""People are asked about pairs: the flow on tiny random models, against real stores."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest

from flows import progress
from flows.sample_pairs_flow import sample_pairs
from stages.core import tracking
from stages.core.artifacts import (
    Artifact,
    StageResult,
    data_root,
    folder_files,
    make_artifact,
    write_result,
)
from stages.core.config import Compute, PipelineConfig, ReviewQueueConfig, SamplePairsConfig
from stages.core.contracts import Datasets, PPOOutputs, SFTOutputs
from stages.core.errors import UserError

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server", "data_root")]

CPU = Compute(device="cpu", num_threads=1)
CONFIG = SamplePairsConfig(num_pairs=6, max_completion_length=4, choice="random")


def _save_model(folder: Path, seed: int) -> Artifact:
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    names = ["<|pad|>", "<|end|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    backend = Tokenizer(models.BPE({name: number for number, name in enumerate(names)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<|pad|>", eos_token="<|end|>"
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(tokenizer),
                hidden_size=16,
                intermediate_size=32,
                num_hidden_layers=1,
                num_attention_heads=2,
                max_position_embeddings=128,
            )
        )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return make_artifact("model", folder)


@pytest.fixture
def earlier(request: pytest.FixtureRequest) -> Callable[..., str]:
    """Makes a pipeline run with stages that are finished; returns its id."""

    def make(*stages: str) -> str:
        run_id = tracking.start_pipeline_run(PipelineConfig(profile=request.node.name), "align")
        for number, stage in enumerate(stages):
            folder = data_root() / "runs" / stage / f"{number:012d}"
            folder.mkdir(parents=True)
            if stage == "clean":
                rows = [{"prompt": f"Where is house {n}?"} for n in range(12)]
                (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
                outputs: Any = Datasets(prompts=make_artifact("prompts", folder))
            else:
                model = _save_model(folder / "model", number)
                outputs = (
                    SFTOutputs(adapter=model, model=model)
                    if stage == "sft"
                    else PPOOutputs(model=model, history=model)
                )
            result = StageResult(
                stage=stage,
                key=folder.name,
                outputs=outputs.model_dump(mode="json"),
                metrics={},
                files=folder_files(folder),
                tracking_run_id="0" * 32,
            )
            write_result(folder, result)
            tracking.log_reused(run_id, result)
        tracking.end_pipeline_run(run_id, "FINISHED", {})
        return run_id

    return make


def _published(experiment: str) -> list[str]:
    return [pair.pair_id for pair in tracking.published_pairs(experiment)]


def test_a_queue_is_opened_once_and_the_next_asks_about_other_pairs(
    earlier: Callable[..., str],
) -> None:
    run_id = earlier("clean", "sft", "ppo")
    queue = ReviewQueueConfig(experiment="people", reviewers=("anna", "boris"), overlap_share=0.5)
    given = (CONFIG, queue, CPU, run_id)
    with progress.reporting_to(progress.Reporter()):
        reporter = progress.current()
        metrics = sample_pairs(*given)
    assert metrics["num_pairs"] == 6
    first = _published("people")
    assert len(first) == 6
    assert "(6 pairs, 9 to judge in 2 queues)" in reporter.places["review queue"]
    assert reporter.places["page"].endswith("/review-queue")

    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("people-pairs")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    (stage,) = [run for run in runs if run.info.run_name == "sample_pairs"]
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert parent.data.metrics["num_pairs"] == 6
    assert parent.data.params["num_reviewers"] == "2"
    assert "anna" not in str([run.to_dictionary() for run in runs])
    # The newest run to build on is the pipeline's, not this one.
    assert tracking.earlier_run("").run_id == run_id

    # Killed before it could say that the queue is open: the same pairs, nothing doubled.
    client.delete_tag(stage.info.run_id, "review_queue")
    sample_pairs(*given)
    assert _published("people") == first

    sample_pairs(*given)
    assert len(_published("people")) == 12
    assert _published("people")[:6] == first


def test_the_same_model_under_two_names_is_asked_once(earlier: Callable[..., str]) -> None:
    run_id = earlier("clean", "ppo")
    queue = ReviewQueueConfig(experiment="same")
    with pytest.raises(UserError, match="no version 'champion' of the registered model"):
        sample_pairs(CONFIG, queue, CPU, run_id, models=("champion",))
    single = CONFIG.model_copy(update={"num_replies": 1})
    with pytest.raises(UserError, match="raise sample_pairs.num_replies, or name two models"):
        sample_pairs(single, queue, CPU, run_id, models=("policy", "policy"))


def test_a_run_without_what_is_needed_is_one_line(
    earlier: Callable[..., str], tmp_path: Path
) -> None:
    run_id = earlier("sft")
    queue = ReviewQueueConfig(experiment="lacking")
    with pytest.raises(UserError, match="needs the result of stage ppo, which run 'align' does"):
        sample_pairs(CONFIG, queue, CPU, run_id)
    with pytest.raises(UserError, match="needs the result of stage clean"):
        sample_pairs(CONFIG, queue, CPU, run_id, models=("sft",))
    with pytest.raises(UserError, match="prompts: nothing.jsonl: no such file"):
        sample_pairs(CONFIG, queue, CPU, run_id, prompts=("nothing.jsonl",))
    with pytest.raises(UserError, match="no MLflow experiment is called 'chats'"):
        sample_pairs(CONFIG, queue, CPU, run_id, models=("sft",), traffic="chats")


def test_prompts_of_files_and_traffic(earlier: Callable[..., str], tmp_path: Path) -> None:
    run_id = earlier("sft")
    experiment = mlflow.create_experiment("chats", artifact_location=tmp_path.as_uri())
    span = mlflow.start_span_no_context(
        "chat", inputs={"prompt": "Is it open?"}, experiment_id=experiment
    )
    span.end()
    mlflow.flush_trace_async_logging()
    file = tmp_path / "prompts.txt.jsonl"
    file.write_text('{"prompt": "Where is it?"}\n')
    queue = ReviewQueueConfig(experiment="given")
    sample_pairs(CONFIG, queue, CPU, run_id, models=("sft",), prompts=(str(file),), traffic="chats")
    asked = {pair.prompt for pair in tracking.published_pairs("given")}
    assert asked == {"Where is it?", "Is it open?"}
