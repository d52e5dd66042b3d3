"""What cleaning found of the faults that were put into the corpus, and the benchmark's tables."""

import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from cleaning_job import Measured

DUPLICATE_RULES = ("duplicate", "near_duplicate", "in_held_out")
OTHER_RULES = ("evaluation", "language", "toxicity", "unusable")
"""Of ours; all others are about quality."""
SAME = ("exact", "case", "spacing")
NEAR = ("edited_1", "edited_2.5", "edited_6", "truncated")
THRESHOLD = 0.8
"""Jaccard similarity from which on two documents are near duplicates."""

Truth = list[dict[str, Any]]


@dataclass(frozen=True)
class Outcome:
    """What one side did with the documents."""

    kept: dict[str, str]
    """Id and text as cleaned."""
    removed: dict[str, str]
    """Id and what it was removed for: duplicate, near_duplicate, in_held_out, evaluation or the
    name of another rule."""


# --------------------------------------------------------------------------------------- reading


def read_truth(folder: Path) -> Truth:
    return list(_lines(folder / "truth.jsonl"))


def read_ours(out: Path) -> Outcome:
    """The outcome of the stage clean."""
    kept = {
        row["id"]: row["text"]
        for name in ("train", "held_out")
        for row in _lines(out / "documents" / f"{name}.jsonl")
    }
    with pa.CompressedInputStream(pa.OSFile(str(out / "rejects.jsonl.zst")), "zstd") as stream:
        rows = [json.loads(line) for line in stream.read().splitlines()]
    return Outcome(kept, {row["record"]["id"]: row["rule"] for row in rows})


def read_datatrove(out: Path, truth: Truth) -> Outcome:
    """The outcome of datatrove, which leaves no trace of most of what it removes."""
    kept = {row["id"]: row["text"] for row in _rows(out / "kept")}
    contaminated = {row["id"] for row in _rows(out / "contaminated")}
    filtered = {row["id"] for row in _rows(out / "filtered")}
    removed = {}
    for document in truth:
        name = document["id"]
        if name not in kept:
            rule = "evaluation" if name in contaminated else "quality"
            removed[name] = "near_duplicate" if name in filtered else rule
    return Outcome(kept, removed)


def _rows(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.glob("*.jsonl")):
        yield from _lines(path)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


# --------------------------------------------------------------------------------------- scoring


def score(truth: Truth, outcome: Outcome) -> dict[str, float]:
    """Recall and precision of each kind of fault, and the shares of sound documents removed."""
    return {
        **_score_copies(truth, outcome),
        **_score_personal_data(truth, outcome),
        **_score_evaluation(truth, outcome),
        **_score_rest(truth, outcome),
    }


def _score_copies(truth: Truth, outcome: Outcome) -> dict[str, float]:
    """A pair counts as found when not both stay; pairs of which another rule takes a document are
    left out. Precision: of the documents removed as near duplicates, those that have a near
    duplicate in the corpus at all, and those that have one at the threshold."""

    def is_judged(name: str) -> bool:
        return outcome.removed.get(name, "duplicate") in DUPLICATE_RULES

    found: dict[str, list[bool]] = defaultdict(list)
    similarity: dict[str, float] = {}
    for document in truth:
        if "copy_of" not in document:
            continue
        pair = document["id"], document["copy_of"]
        for name in pair:
            similarity[name] = document["similarity"]
        if not all(map(is_judged, pair)):
            continue
        is_found = not all(name in outcome.kept for name in pair)
        if document["fault"] in SAME:
            found["exact"].append(is_found)
        elif document["similarity"] >= THRESHOLD:
            found["near"].append(is_found)
            found[document["fault"]].append(is_found)
        else:
            found["below"].append(is_found)
    removed = [name for name, rule in outcome.removed.items() if rule in DUPLICATE_RULES]
    # One row of signs is as good as another: that is no mistake.
    junk = {document["id"] for document in truth if document.get("junk")}
    near = [name for name in removed if outcome.removed[name] != "duplicate" and name not in junk]
    figures = {
        "exact_duplicate_recall": mean(found["exact"]),
        "near_duplicate_recall": mean(found["near"]),
        "near_duplicate_precision": mean(name in similarity for name in near),
        "near_duplicate_precision_at_threshold": mean(
            similarity.get(name, 0) >= THRESHOLD for name in near
        ),
        "near_duplicate_precision_at_0.7": mean(similarity.get(name, 0) >= 0.7 for name in near),
        "found_below_threshold": mean(found["below"]),
        "near_duplicates_removed": len(near),
    }
    return figures | {f"near_duplicate_recall_{name}": mean(found[name]) for name in NEAR}


def _score_personal_data(truth: Truth, outcome: Outcome) -> dict[str, float]:
    """Of the values in the documents that stay. A value counts as redacted when it is gone and its
    sentence is not; values whose sentence is gone, too, are left out."""
    gone: dict[str, list[bool]] = defaultdict(list)
    for document in truth:
        text = outcome.kept.get(document["id"])
        if text is None:
            continue
        for kind, form, value, sentence in document.get("personal", []):
            _note(text, value, sentence, [gone[kind], gone[f"{kind}: {form}"], gone["all"]])
        for _, form, value, sentence in document.get("decoys", []):
            _note(text, value, sentence, [gone[f"decoy: {form}"], gone["decoys"]])
    redacted = sum(gone["all"])
    wrongly = sum(gone["decoys"])
    figures = {
        "pii_recall": mean(gone.pop("all", [])),
        "pii_precision": redacted / max(redacted + wrongly, 1),
        "decoys_redacted": mean(gone.pop("decoys", [])),
    }
    return figures | {f"redacted {name}": mean(of) for name, of in sorted(gone.items())}


def _note(text: str, value: str, sentence: str, lists: Iterable[list[bool]]) -> None:
    before, _, after = sentence.partition(value)
    rest = max(before.strip(), after.strip(), key=len)
    if value in text or rest in text:
        for of in lists:
            of.append(value not in text)


def _score_evaluation(truth: Truth, outcome: Outcome) -> dict[str, float]:
    planted = {document["id"] for document in truth if document.get("evaluation_set")}
    flagged = {name for name, rule in outcome.removed.items() if rule == "evaluation"}
    judged = [name in flagged for name in planted if name in outcome.kept or name in flagged]
    return {
        "decontamination_recall": mean(judged),
        "decontamination_precision": mean(name in planted for name in flagged),
    }


def _score_rest(truth: Truth, outcome: Outcome) -> dict[str, float]:
    """Junk, mojibake, and what quality rules take of sound documents, by where these are from."""
    junk: dict[str, list[bool]] = defaultdict(list)
    restored: list[bool] = []
    rejected: dict[str, list[bool]] = defaultdict(list)
    rules: Counter[str] = Counter()
    for document in truth:
        text = outcome.kept.get(document["id"])
        fault = document.get("fault", "")
        if fault == "junk":
            junk["all"].append(text is None)
            junk[document["junk"]].append(text is None)
        if fault == "mojibake" and text is not None:
            restored.append(all(passage in text for passage in document["passages"]))
        if not fault:
            rule = outcome.removed.get(document["id"], "")
            is_rejected = bool(rule) and rule not in (*DUPLICATE_RULES, *OTHER_RULES)
            origin = document["origin"] + (" recombined" if document.get("is_recombined") else "")
            rejected[origin].append(is_rejected)
            if document["origin"] == "foreign":
                rejected[f"foreign: {document['language']}"].append(is_rejected)
            if is_rejected and origin == "technical":
                rules[rule] += 1
    figures = {
        "technical_rejected_share": mean(rejected["technical"]),
        "junk_recall": mean(junk.pop("all", [])),
        "mojibake_restored": mean(restored),
    }
    figures |= {f"junk: {name}": mean(of) for name, of in sorted(junk.items())}
    figures |= {f"rejected {name}": mean(of) for name, of in sorted(rejected.items())}
    total = max(len(rejected["technical"]), 1)
    return figures | {f"technical: {rule}": count / total for rule, count in rules.most_common()}


def mean(values: Iterable[bool]) -> float:
    found = list(values)
    return sum(found) / len(found) if found else 1.0


# ---------------------------------------------------------------------------------------- tables


def median(runs: Iterable[Measured], name: str) -> float:
    return statistics.median(getattr(run, name) for run in runs)


def print_speed(runs: Mapping[str, list[Measured]], sizes: Mapping[str, tuple[float, int]]) -> None:
    """A row for each side; sizes are megabytes and documents."""
    print("\n| | CPU-s | wall, s | MB/s a core | documents/s a core | peak MB |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, of in runs.items():
        megabytes, documents = sizes[name]
        cpu = median(of, "cpu_seconds")
        cells = [
            f"{cpu:.1f}", f"{median(of, 'wall_seconds'):.1f}", f"{megabytes / cpu:.2f}",
            f"{documents / cpu:.0f}", f"{median(of, 'peak_mb'):.0f}",
        ]  # fmt: skip
        print(f"| {name} | {' | '.join(cells)} |")


def print_steps(runs: Mapping[str, list[Measured]], sizes: Mapping[str, tuple[float, int]]) -> None:
    """Where the CPU time goes: milliseconds a megabyte."""
    print("\n| | step | ms a MB |\n|---|---|---:|")
    for side, of in runs.items():
        for step in of[0].steps:
            seconds = statistics.median(run.steps[step] for run in of)
            print(f"| {side} | {step} | {1000 * seconds / sizes[side][0]:.1f} |")


def print_scores(scores: Mapping[str, Mapping[str, float]], prefixes: tuple[str, ...] = ()) -> None:
    """A row for each figure, a column for each side."""
    sides = list(scores)
    print(f"\n| | {' | '.join(sides)} |")
    print(f"|---|{'---:|' * len(sides)}")
    names = dict.fromkeys(name for of in scores.values() for name in of)
    for name in names:
        if prefixes and not name.startswith(prefixes):
            continue
        cells = [f"{of[name]:.4g}" if name in of else "" for of in scores.values()]
        print(f"| {name.replace('_', ' ')} | {' | '.join(cells)} |")
