import json
import re
from pathlib import Path

import pytest

from flows.hand_over import stage_inputs
from flows.plan import check, planned_stages
from flows.profiles import cpu_demo, override, smollm2
from stages.core import contracts
from stages.core.artifacts import Artifact, make_artifact
from stages.core.config import Frozen, PipelineConfig
from stages.core.errors import UserError
from stages.core.launch import stage_key

SFT = "data/samples/sft.jsonl"


def _artifact(kind: str, name: str) -> Artifact:
    return Artifact.model_validate({"kind": kind, "path": name, "digest": name})


def test_from_scratch_the_stages_start_with_a_tokenizer() -> None:
    assert planned_stages(cpu_demo()) == (
        "collect", "clean", "tokenizer", "pretrain", "sft", "reward_model", "guard_model",
        "reward_model_card", "classifier", "ppo", "evaluate",
    )  # fmt: skip


def test_without_pairs_of_its_own_there_is_no_guard_model() -> None:
    assert "guard_model" not in planned_stages(override(cpu_demo(), {"clean.guard_share": 0}))


def test_a_given_model_takes_the_place_of_tokenizer_and_pretraining() -> None:
    config = override(smollm2(), {"base_model.source": "somewhere"})
    assert planned_stages(config, "sft") == ("collect", "clean", "base_model", "sft")
    config = override(config, {"pretrain.enabled": "true"})
    assert planned_stages(config, "pretrain") == ("collect", "clean", "base_model", "pretrain")


def test_no_way_to_a_base_model_is_refused() -> None:
    with pytest.raises(UserError, match=r"base_model\.source is empty"):
        planned_stages(smollm2())


def test_until_a_stage_that_is_not_planned_is_refused() -> None:
    with pytest.raises(UserError, match="no stage base_model; its stages are: collect"):
        planned_stages(cpu_demo(), "base_model")


def test_the_demo_passes_the_checks_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    check(cpu_demo(), planned_stages(cpu_demo()))


def _faulty(changes: dict[str, object]) -> PipelineConfig:
    return override(cpu_demo(), changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"collect.preferences.paths": [], "collect.preferences.held_out_paths": []},
            "collect.preferences.paths is empty, but stage reward_model needs",
        ),
        ({"collect.sft.paths": []}, "collect.sft.paths is empty"),
        ({"collect.sft.paths": ["gone.jsonl"]}, "collect.sft.paths: gone.jsonl: no such file"),
        ({"collect.sft.paths": ["gone-*.jsonl"]}, r"collect.sft.paths: gone-\*.jsonl: no such"),
        ({"collect.sft.held_out_paths": ["gone"]}, "collect.sft.held_out_paths: gone: no such"),
        ({"evaluate.scorers.oracle": "gone.py:score"}, "evaluate.scorers.oracle: gone.py: no such"),
        ({"evaluate.scorers.oracle": "oracle.py"}, "'oracle.py' is neither file.py:function nor"),
        (
            {"evaluate.scorers": {"my scorer": "a.py:b"}},
            "evaluate.scorers.my scorer: choose another",
        ),
        ({"ppo.scorers": {"my scorer": "a.py:b"}}, "ppo.scorers.my scorer: choose another name"),
        ({"ppo.scorers.style": "gone.py:rate"}, "ppo.scorers.style: gone.py: no such file"),
        (
            {"ppo.scorers.style": "style.txt:rate"},
            "ppo.scorers.style: 'style.txt:rate' is neither file.py:function nor a folder here",
        ),
        (
            {"ppo.scorers.style": "gone/folder:toxic"},
            "'gone/folder:toxic' is neither file.py:function nor a folder here, alone or with :L",
        ),
        (
            {
                "evaluate.scorers.rude": "classifier:toxic",
                "collect.labelled.paths": [],
                "collect.labelled.held_out_paths": [],
            },
            "evaluate.scorers.rude: 'classifier:toxic' is the chain's own classifier, and this run "
            "trains none: give it labelled text with collect.labelled.paths",
        ),
        (
            {"classifier.source": "gone/model/x", "collect.labelled.paths": [SFT]},
            "classifier.source: gone/model/x: no such file or folder, and no hub name",
        ),
        (
            {"classifier.source": "owner/name", "collect.labelled.paths": [SFT]},
            "pin it with classifier.revision=",
        ),
        ({"ppo.scorers.style": "data"}, "ppo.scorers.style: .*/data: no reward model: neither"),
        ({"base_model.source": "./gone/model"}, "base_model.source: ./gone/model: no such file"),
        ({"base_model.source": "owner/name"}, "base_model.revision"),
    ],
)
def test_what_is_missing_is_named_before_anything_runs(
    changes: dict[str, object], message: str
) -> None:
    config = _faulty(changes)
    with pytest.raises(UserError, match=message):
        check(config, planned_stages(config))


def test_data_of_later_stages_is_not_needed(tiny_config: PipelineConfig) -> None:
    check(tiny_config, planned_stages(tiny_config, "pretrain"))
    with pytest.raises(UserError, match=r"collect.sft.paths is empty, but stage sft"):
        check(tiny_config, planned_stages(tiny_config, "sft"))


def test_globs_and_folders_are_expanded_and_hashed(tmp_path: Path, data_root: Path) -> None:
    folder = tmp_path / "texts"
    (folder / "deep").mkdir(parents=True)
    for name in ("b.txt", "deep/a.jsonl.gz", "notes.pdf", ".hidden.txt"):
        (folder / name).write_bytes(name.encode())
    paths = [str(folder), str(tmp_path / "texts" / "*.txt")]
    config = override(cpu_demo(), {"collect.documents.paths": paths})
    inputs, upstream = stage_inputs("collect", config, {})
    assert isinstance(inputs, contracts.CollectInputs)
    assert [Path(file.path).name for file in inputs.documents] == ["b.txt", "a.jsonl.gz"]
    assert len({file.digest for file in inputs.documents}) == 2
    assert upstream == ()


def _outputs() -> dict[str, Frozen]:
    """What all stages before the evaluation returned."""
    kinds = ("documents", "sft", "preferences", "prompts")
    return {
        "clean": contracts.Datasets.model_validate({kind: _artifact(kind, kind) for kind in kinds}),
        "tokenizer": contracts.TokenizerOutputs(tokenizer=_artifact("tokenizer", "tokenizer")),
        "pretrain": contracts.ModelOutputs(model=_artifact("model", "base")),
        "sft": contracts.SFTOutputs(
            adapter=_artifact("adapter", "sft-adapter"), model=_artifact("model", "sft-model")
        ),
        "reward_model": contracts.RewardModelOutputs(reward_model=_artifact("reward_model", "rm")),
        "ppo": contracts.PPOOutputs(
            adapter=_artifact("adapter", "policy-adapter"),
            model=_artifact("model", "policy"),
            history=_artifact("history", "history"),
        ),
    }


def test_each_stage_gets_what_the_stages_before_returned(data_root: Path) -> None:
    outputs = _outputs()
    config = cpu_demo()

    def paths(stage: str) -> dict[str, str]:
        inputs, _ = stage_inputs(stage, config, outputs)
        fields = inputs.model_dump(mode="json")
        return {name: value["path"] for name, value in fields.items() if value and "path" in value}

    assert paths("pretrain") == {"documents": "documents", "tokenizer": "tokenizer"}
    assert paths("sft") == {"model": "base", "sft": "sft"}
    assert paths("reward_model") == {
        "model": "sft-model", "preferences": "preferences", "prompts": "prompts",
    }  # fmt: skip
    assert paths("ppo") == {"model": "sft-model", "reward_model": "rm", "prompts": "prompts"}
    assert paths("evaluate") == {
        "base": "base", "sft": "sft-model", "policy": "policy", "reward_model": "rm",
        "history": "history",
    }  # fmt: skip
    evaluate, upstream = stage_inputs("evaluate", config, outputs)
    assert isinstance(evaluate, contracts.EvaluateInputs)
    assert evaluate.scorers["oracle"].kind == "scorer"
    assert upstream == ("clean", "pretrain", "sft", "reward_model", "ppo")


def test_the_guard_model_gets_pairs_of_its_own_and_the_card_tests_both(data_root: Path) -> None:
    outputs = _outputs()
    clean = outputs["clean"].model_dump()
    clean["guard_preferences"] = guards = _artifact("preferences", "guard-preferences")
    outputs["clean"] = contracts.Datasets.model_validate(clean)
    inputs, _ = stage_inputs("guard_model", cpu_demo(), outputs)
    assert isinstance(inputs, contracts.GuardModelInputs)
    assert inputs.preferences == guards
    card, upstream = stage_inputs("reward_model_card", cpu_demo(), outputs)
    assert isinstance(card, contracts.RewardModelCardInputs)
    assert card.guard_model is None
    assert upstream == ("clean", "sft", "reward_model")
    guard = _artifact("reward_model", "guard")
    outputs["guard_model"] = contracts.RewardModelOutputs(reward_model=guard)
    card, upstream = stage_inputs("reward_model_card", cpu_demo(), outputs)
    assert isinstance(card, contracts.RewardModelCardInputs)
    assert card.guard_model == guard
    assert card.preferences == _artifact("preferences", "preferences")
    assert upstream == ("clean", "sft", "reward_model", "guard_model")


def _ppo_inputs(config: PipelineConfig) -> contracts.PPOInputs:
    inputs, upstream = stage_inputs("ppo", config, _outputs())
    assert isinstance(inputs, contracts.PPOInputs)
    assert upstream == ("clean", "sft", "reward_model")
    return inputs


def test_only_dpo_depends_on_the_preferences(data_root: Path) -> None:
    config = cpu_demo()
    assert _ppo_inputs(config).preferences is None
    dpo = override(config, {"ppo.algorithm": "dpo"})
    assert _ppo_inputs(dpo).preferences == _artifact("preferences", "preferences")


@pytest.fixture
def classifier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder's ``classifier``, as far as the plan looks into it."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "classifier"
    folder.mkdir()
    labels = {"0": "civil", "1": "toxic"}
    config = {"architectures": ["LlamaForSequenceClassification"], "id2label": labels}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    return folder


def test_the_scorers_of_ppo_are_files_and_folders(
    classifier: Path, tmp_path: Path, data_root: Path
) -> None:
    (tmp_path / "style.py").write_text("", encoding="utf-8")
    places = {
        "ppo.scorers.style": "style.py:rate",
        "ppo.scorers.taste": "./classifier:-toxic",
        "evaluate.scorers.taste": "./classifier:civil",
    }
    config = override(cpu_demo(), places)
    check(config, planned_stages(config))
    inputs = _ppo_inputs(config)
    assert inputs.scorers == {
        "style": make_artifact("scorer", tmp_path / "style.py"),
        "taste": make_artifact("scorer", classifier),
    }
    (classifier / "model.safetensors").write_bytes(b"other weights")
    assert stage_key(config.ppo, inputs) != stage_key(config.ppo, _ppo_inputs(config))


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("./classifier", "has 2 labels; name one of civil, toxic behind the folder"),
        ("./classifier:rude", "has no label 'rude'; name one of civil, toxic"),
    ],
)
@pytest.mark.parametrize("stage", ["ppo", "evaluate"])
def test_a_label_that_a_classifier_lacks_is_refused_before_anything_runs(
    classifier: Path, stage: str, place: str, message: str
) -> None:
    config = override(cpu_demo(), {f"{stage}.scorers.taste": place})
    expected = f"{stage}.scorers.taste: {classifier}: the classifier {message}"
    with pytest.raises(UserError, match=re.escape(expected)):
        check(config, planned_stages(config))


def test_a_classifier_without_its_tokenizer_is_refused(classifier: Path) -> None:
    (classifier / "tokenizer.json").unlink()
    config = override(cpu_demo(), {"ppo.scorers.taste": "./classifier:toxic"})
    with pytest.raises(UserError, match="no tokenizer beside the model"):
        check(config, planned_stages(config))


def test_the_chains_own_classifier_is_handed_to_ppo_and_evaluation(data_root: Path) -> None:
    changes = {
        "collect.labelled.paths": [SFT],
        "ppo.scorers": {"civil": "classifier:-toxic"},
        "evaluate.scorers": {"rude": "classifier:toxic"},
    }
    config = override(cpu_demo(), changes)
    stages = planned_stages(config)
    assert stages.index("classifier") < stages.index("ppo")
    check(config, stages)
    made = _artifact("classifier", "classifier")
    outputs = _outputs() | {"classifier": contracts.ClassifierOutputs(classifier=made)}
    ppo, upstream = stage_inputs("ppo", config, outputs)
    assert isinstance(ppo, contracts.PPOInputs)
    assert ppo.scorers == {"civil": made}
    assert upstream == ("clean", "sft", "reward_model", "classifier")
    evaluate, _ = stage_inputs("evaluate", config, outputs)
    assert isinstance(evaluate, contracts.EvaluateInputs)
    assert evaluate.scorers == {"rude": made}
    with pytest.raises(UserError, match="stage ppo needs the result of stage classifier"):
        stage_inputs("ppo", config, _outputs())


def test_a_scorer_whose_base_model_is_gone_is_refused_before_anything_runs(
    tmp_path: Path, data_root: Path
) -> None:
    folder = tmp_path / "reward_model"
    folder.mkdir()
    (folder / "reward_model.json").write_text("{}", encoding="utf-8")
    base = data_root / "base"
    base.mkdir()
    (folder / "base.json").write_text(make_artifact("model", base).model_dump_json())
    config = override(cpu_demo(), {"ppo.scorers.other": str(folder)})
    check(config, planned_stages(config))
    base.rmdir()
    message = (
        f"ppo.scorers.other: {folder}: its base model {base} is missing; restore it (the data root "
        "is $RLHF_DATA_ROOT) or train the reward model again"
    )
    with pytest.raises(UserError) as refusal:
        check(config, planned_stages(config))
    assert str(refusal.value) == message
    check(config, planned_stages(config, "sft"))


def test_a_gate_is_not_left_to_a_scorer_that_is_not_there() -> None:
    for scorer, changes in (
        ("gaurd_model", {}),
        ("guard_model", {"clean.guard_share": 0}),
        ("judge", {}),
    ):
        config = _faulty({"evaluate.gate.scorer": scorer, **changes})
        with pytest.raises(UserError, match=rf"nothing called '{scorer}' judges in this run"):
            check(config, planned_stages(config))
    config = _faulty({"evaluate.gate.scorer": "guard_model"})
    check(config, planned_stages(config))
    check(config, ["evaluate"])  # an earlier run may bring one


def test_what_ppo_optimises_does_not_judge() -> None:
    oracle = cpu_demo().evaluate.scorers["oracle"]
    weighted = {"ppo.scorers.fun": oracle, "ppo.scorer_weights.fun": 1.0}
    config = _faulty(weighted)
    with pytest.raises(UserError, match=r"evaluate\.scorers\.oracle: PPO optimises"):
        check(config, planned_stages(config))


def test_a_judging_scorers_name_is_not_that_of_another_figure() -> None:
    config = _faulty({"evaluate.scorers.kl": cpu_demo().evaluate.scorers["oracle"]})
    with pytest.raises(UserError, match=r"evaluate\.scorers\.kl: choose another name"):
        check(config, planned_stages(config))


def test_without_held_out_data_nothing_could_be_judged(tmp_path: Path) -> None:
    for stage, kind in (("reward_model_card", "preferences"), ("evaluate", "prompts")):
        none = {f"collect.{kind}.held_out_paths": [], f"collect.{kind}.held_out_share": 0}
        config = _faulty(none)
        with pytest.raises(UserError, match=rf"stage {stage} needs held-out {kind}"):
            check(config, planned_stages(config))


def test_the_classifier_of_an_earlier_run_may_be_a_scorer() -> None:
    config = _faulty(
        {"ppo.scorers.kind": "classifier:-toxic", "collect.labelled.paths": [],
         "collect.labelled.held_out_paths": []}
    )  # fmt: skip
    check(config, ["ppo", "evaluate"])
    with pytest.raises(UserError, match="this run trains none"):
        check(config, planned_stages(config))
