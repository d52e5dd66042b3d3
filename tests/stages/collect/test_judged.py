"""People's judgments among the data: what is trained on, what is held out, what is recorded."""

import datetime
import json

import pytest

from stages import clean, collect
from stages.core.artifacts import Artifact, make_artifact
from stages.core.config import CleanConfig, CollectConfig, Compute, DataSource, FeedbackSource
from stages.core.contracts import CleanInputs, CollectInputs
from stages.core.errors import UserError
from stages.core.feedback.judgments import Judgment
from stages.core.feedback.pairs import CandidatePair, pair_id
from stages.core.feedback.preferences import feedback_data
from stages.core.feedback.report import make_report
from stages.core.fetch import cache_folder
from stages.core.fetch.feedback import keep_feedback
from stages.core.schemas import prompt_key, read_jsonl

SOURCE = FeedbackSource(annotators="all")


def judged(prompt, purpose="chosen", kind="human", better_answer="", verdict="a"):
    replies = (f"Good reply to {prompt}", f"Bad reply to {prompt}")
    named = pair_id(prompt, *replies)
    pair = CandidatePair(
        pair_id=named, prompt=prompt, reply_a=replies[0], reply_b=replies[1], purpose=purpose
    )
    return Judgment(
        judgment_id=f"a-{named}",
        trace_id=f"tr-{named}",
        queue="round 1",
        pair=pair,
        verdict=verdict,
        better_answer=better_answer,
        annotator={"human": "anna", "ai": "gpt"}[kind],
        annotator_kind=kind,
        created_at=datetime.datetime(2026, 11, 2, tzinfo=datetime.UTC),
    )


def snapshot_of(*judgments):
    pseudonyms = {"anna": "annotator-1a2b3c4d"}
    data = feedback_data(judgments, SOURCE, pseudonyms)
    report = make_report(data, SOURCE, pseudonyms)
    return keep_feedback(cache_folder(), SOURCE, data, report)


def inputs_of(snapshot, *kinds, **files):
    """What fetch gives collect of these kinds, behind the files of the user's."""
    by_name = {
        file.name.removesuffix(".jsonl"): Artifact(
            kind="source", path=f"cache/sources/{snapshot.folder}/{file.name}", digest=file.sha256
        )
        for file in snapshot.files
    }
    names = [name for kind in kinds for name in (kind, f"{kind}_held_out")]
    found = {name: (by_name[name],) for name in (*names, "reserved") if name in by_name}
    for name, path in files.items():
        found[name] = (make_artifact("source", path), *found.get(name, ()))
    return CollectInputs(**found)


def write_pairs(path, prompts):
    rows = [{"prompt": text, "chosen": f"{text} yes", "rejected": f"{text} no"} for text in prompts]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(inputs, tmp_path, name="out", **sources):
    out_dir = tmp_path / "runs" / name
    out_dir.mkdir(parents=True)
    config = CollectConfig(**{kind: DataSource(**given) for kind, given in sources.items()})
    outputs, metrics = collect.run(config, inputs, Compute(), out_dir)
    return outputs, metrics, out_dir


def rows(folder, kind, split):
    return list(read_jsonl(folder / kind / f"{split}.jsonl"))


def prompts(folder, kind, split):
    return {row["prompt"] for row in rows(folder, kind, split)}


ROUND = [
    *(judged(f"How {n}?") for n in range(6)),
    *(judged(f"When {n}?", kind="ai") for n in range(2)),
    *(judged(f"Who {n}?", "random", better_answer="Ada.") for n in range(3)),
    judged("Where?", better_answer="Here."),
]


def test_judgments_alone_are_trained_on_but_for_the_random_share(tmp_path):
    inputs = inputs_of(snapshot_of(*ROUND), "preferences", "sft", "prompts")
    _, metrics, folder = run(inputs, tmp_path)
    assert len(rows(folder, "preferences", "train")) == 9
    assert prompts(folder, "preferences", "held_out") == {"Who 0?", "Who 1?", "Who 2?"}
    assert rows(folder, "sft", "train") == [{"prompt": "Where?", "completion": "Here."}]
    assert prompts(folder, "prompts", "held_out") == {"Who 0?", "Who 1?", "Who 2?"}
    assert metrics == {
        "preferences_train": 9.0,
        "preferences_held_out": 3.0,
        "preferences_rejected": 0.0,
        "preferences_feedback_human": 7.0,
        "preferences_feedback_ai": 2.0,
        "preferences_held_out_feedback_human": 3.0,
        "preferences_held_out_feedback_ai": 0.0,
        "sft_train": 1.0,
        "sft_held_out": 3.0,
        "sft_rejected": 0.0,
        "sft_feedback": 1.0,
        "sft_held_out_feedback": 3.0,
        "prompts_train": 9.0,
        "prompts_held_out": 3.0,
        "prompts_rejected": 0.0,
        "prompts_feedback": 9.0,
        "prompts_held_out_feedback": 3.0,
        "feedback_judgments_human": 10.0,
        "feedback_judgments_ai": 2.0,
        "feedback_annotators": 2.0,
        "feedback_annotators_left_out": 0.0,
        "feedback_conflicts": 0.0,
    }


def test_manifest_and_report_record_snapshot_counts_and_pseudonyms(tmp_path):
    snapshot = snapshot_of(*ROUND)
    _, _, folder = run(inputs_of(snapshot, "preferences"), tmp_path)
    manifest = json.loads((folder / "manifest.json").read_text())
    for split in ("train", "held_out"):
        (entry,) = manifest["preferences"][split]["files"]
        assert entry["source"]["experiment"] == "feedback"
        assert entry["version"] == {
            "digest": snapshot.digest,
            "judgments": "12",
            "annotators": "2",
            "since": "2026-11-02T00:00:00+00:00",
            "until": "2026-11-02T00:00:00+00:00",
        }
    report = json.loads((folder / "feedback" / f"{snapshot.digest[:12]}.json").read_text())
    assert report["by_annotator"] == {"annotator-1a2b3c4d": 10, "gpt": 2}
    assert {"judgment_id", "trace_id", "use"} == set(report["judgments"][0])
    for path in folder.rglob("*"):
        assert path.is_dir() or "anna" not in path.read_text(), path


def test_files_are_split_by_their_share_beside_judgments(tmp_path):
    files = write_pairs(tmp_path / "pairs.jsonl", [f"Question {n}" for n in range(200)])
    inputs = inputs_of(snapshot_of(*ROUND), "preferences", preferences=files)
    _, metrics, folder = run(inputs, tmp_path, preferences={"held_out_share": 0.1})
    train, held_out = (rows(folder, "preferences", split) for split in ("train", "held_out"))
    assert len([row for row in train if "source" in row]) == 9
    assert len([row for row in held_out if "source" in row]) == 3
    assert 8 < len([row for row in held_out if "source" not in row]) < 40
    assert len(train) + len(held_out) == 212
    assert metrics["preferences_feedback_human"] == 7.0


def test_rows_of_files_with_a_judged_prompt_are_not_held_out(tmp_path):
    files = write_pairs(tmp_path / "pairs.jsonl", [f" how {n}? " for n in range(6)] * 2 + ["x"])
    inputs = inputs_of(snapshot_of(*ROUND), "preferences", preferences=files)
    _, _, folder = run(inputs, tmp_path, preferences={"held_out_share": 0.9})
    held_out = prompts(folder, "preferences", "held_out")
    assert held_out - {"x"} == {"Who 0?", "Who 1?", "Who 2?"}


@pytest.mark.slow
def test_no_training_record_of_any_kind_has_a_prompt_of_the_random_share(tmp_path):
    asked = ["who 0?", " WHO  1?", *(f"Question {n}" for n in range(30))]
    messages = [{"role": "user", "content": "Who 2?"}]
    pairs = write_pairs(tmp_path / "pairs.jsonl", asked)
    demonstrations = [{"prompt": text, "completion": "Yes."} for text in (*asked, messages)]
    sft, only_prompts, labelled = (tmp_path / f"{name}.jsonl" for name in ("sft", "asked", "l"))
    sft.write_text("".join(json.dumps(row) + "\n" for row in demonstrations))
    only_prompts.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in asked))
    labels = [{"text": text, "label": n % 2} for n, text in enumerate(asked)]
    labelled.write_text("".join(json.dumps(row) + "\n" for row in labels))
    given = {"preferences": pairs, "sft": sft, "prompts": only_prompts, "labelled": labelled}
    # Only the pairs are taken of the judgments, but the prompts are kept out of all.
    inputs = inputs_of(snapshot_of(*ROUND), "preferences", **given)
    datasets, metrics, folder = run(inputs, tmp_path)
    for kind in ("preferences", "sft", "prompts"):
        keys = {prompt_key(kind, row) for row in rows(folder, kind, "train")}
        assert keys
        assert not keys & {"who 0?", "who 1?", "who 2?"}
    assert metrics["preferences_reserved"] == metrics["prompts_reserved"] == 2.0
    assert metrics["sft_reserved"] == 3.0
    assert "labelled_reserved" not in metrics
    assert metrics["preferences_rejected"] == 0.0  # nothing is wrong with them
    rejects = list(read_jsonl(folder / "rejects.jsonl"))
    assert len(rejects) == 7
    assert {row["reason"] for row in rejects} == {
        "the prompt is of the random share of people's judgments, which is held out"
    }
    manifest = json.loads((folder / "manifest.json").read_text())
    assert [file.get("reserved") for file in manifest["preferences"]["train"]["files"]] == [None, 2]

    reserved = list(read_jsonl(folder / "sft" / "reserved.jsonl"))
    assert reserved == [{"prompt": f"who {n}?"} for n in range(3)]
    assert not (folder / "labelled" / "reserved.jsonl").exists()

    out_dir = tmp_path / "runs" / "clean"
    out_dir.mkdir()
    cleaned, _ = clean.run(CleanConfig(), CleanInputs(datasets=datasets), Compute(), out_dir)
    train, held_out = (
        list(read_jsonl(cleaned.preferences.locate() / f"{split}.jsonl"))
        for split in ("train", "held_out")
    )
    assert {row["source"] for row in held_out if "annotator" in row} == {"feedback:human"}
    by_people = [row for row in train if row.get("source") == "feedback:human"]
    assert {row["annotator"] for row in by_people} == {"annotator-1a2b3c4d"}
    assert {row["margin"] for row in by_people} == {1.0}


def test_held_out_files_and_the_random_share_are_both_held_out(tmp_path):
    train = write_pairs(tmp_path / "train.jsonl", [f"Question {n}" for n in range(20)])
    held_out = write_pairs(tmp_path / "held.jsonl", ["a", "b"])
    given = {"preferences": train, "preferences_held_out": held_out}
    _, metrics, folder = run(inputs_of(snapshot_of(*ROUND), "preferences", **given), tmp_path)
    assert (metrics["preferences_train"], metrics["preferences_held_out"]) == (29.0, 5.0)
    assert prompts(folder, "preferences", "held_out") >= {"a", "b", "Who 0?"}


def test_limits_are_the_files_and_leave_all_judgments(tmp_path):
    files = write_pairs(tmp_path / "pairs.jsonl", [f"Question {n}" for n in range(200)])
    inputs = inputs_of(snapshot_of(*ROUND), "preferences", preferences=files)
    limits = {"held_out_share": 0.1, "max_records": 4, "max_held_out_records": 2}
    _, metrics, folder = run(inputs, tmp_path, preferences=limits)
    assert (metrics["preferences_train"], metrics["preferences_held_out"]) == (4 + 9, 2 + 3)
    for split, count in (("train", 9), ("held_out", 3)):
        judged_rows = [row for row in rows(folder, "preferences", split) if "source" in row]
        assert len(judged_rows) == count
    alone = inputs_of(snapshot_of(*ROUND), "preferences")
    _, metrics, _ = run(alone, tmp_path, "alone", preferences={"max_records": 4})
    assert metrics["preferences_train"] == 9.0


def test_judgments_without_a_random_share_are_split_as_files_are(tmp_path):
    snapshot = snapshot_of(*(judged(f"How {n}?") for n in range(60)))
    _, metrics, _ = run(inputs_of(snapshot, "preferences"), tmp_path)
    assert metrics["preferences_held_out"] > 0
    assert metrics["preferences_train"] + metrics["preferences_held_out"] == 60
    files = write_pairs(tmp_path / "pairs.jsonl", [f"Question {n}" for n in range(60)])
    inputs = inputs_of(snapshot, "preferences", preferences=files)
    _, metrics, folder = run(inputs, tmp_path, "beside files")
    assert metrics["preferences_feedback_human"] == 60.0
    assert not any("source" in row for row in rows(folder, "preferences", "held_out"))


def test_a_kind_of_which_only_the_random_share_was_judged_is_left_out(tmp_path):
    snapshot = snapshot_of(*(judged(f"Who {n}?", "random") for n in range(3)))
    asked = tmp_path / "asked.jsonl"
    asked.write_text("".join(f'{{"prompt": "p {n}"}}\n' for n in range(40)))
    inputs = inputs_of(snapshot, "preferences", "prompts", prompts=asked)
    datasets, metrics, folder = run(inputs, tmp_path)
    assert datasets.preferences is None
    assert metrics["prompts_held_out_feedback"] == 3.0
    assert len(prompts(folder, "prompts", "train")) + metrics["prompts_held_out"] == 43
    assert (folder / "feedback" / f"{snapshot.digest[:12]}.json").exists()


def test_columns_and_groups_of_the_files_are_not_those_of_judgments(tmp_path):
    path = tmp_path / "pairs.jsonl"
    lines = [{"q": f"Q {n}", "good": "yes", "bad": "no", "user": n % 7} for n in range(40)]
    path.write_text("".join(json.dumps(row) + "\n" for row in lines))
    mapping = {"prompt": "q", "chosen": "good", "rejected": "bad"}
    inputs = inputs_of(snapshot_of(*ROUND), "preferences", preferences=path)
    given = {"columns": mapping, "group_column": "user", "held_out_share": 0.2}
    _, metrics, folder = run(inputs, tmp_path, preferences=given)
    assert metrics["preferences_train"] + metrics["preferences_held_out"] == 52
    assert metrics["preferences_rejected"] == 0.0
    assert "annotator" in rows(folder, "preferences", "train")[0]
    assert "could not be made" not in (folder / "check.md").read_text()


def test_a_snapshot_that_was_damaged_is_refused(tmp_path):
    snapshot = snapshot_of(*ROUND)
    (cache_folder() / snapshot.folder / "feedback.json").write_text("{}")
    with pytest.raises(UserError, match="damaged; remove its folder and run again"):
        run(inputs_of(snapshot, "preferences"), tmp_path)


def test_runs_without_judgments_are_as_they_were(tmp_path):
    files = write_pairs(tmp_path / "pairs.jsonl", [f"Question {n}" for n in range(60)])
    inputs = CollectInputs(preferences=(make_artifact("source", files),))
    _, metrics, folder = run(inputs, tmp_path)
    assert set(metrics) == {"preferences_train", "preferences_held_out", "preferences_rejected"}
    assert not (folder / "feedback").exists()
