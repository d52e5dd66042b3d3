"""People's judgments among the files to collect: which they are, and what is recorded of them."""

import itertools
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, Self

from stages.core.artifacts import Artifact, data_root, write_atomically
from stages.core.contracts import CollectInputs
from stages.core.feedback.preferences import SOURCES
from stages.core.feedback.report import REPORT_FILE, REPORTS, read_report, short_digest
from stages.core.fetch import cache_folder, snapshot_of
from stages.core.schemas import DATA_KINDS, DataKind, prompt_key, read_jsonl

JUDGED_KINDS: tuple[DataKind, ...] = ("preferences", "sft", "prompts")
"""What judgments give, and what is kept free of the prompts of the random share."""


def is_judged(path: Path) -> bool:
    """Whether a file is of a snapshot of judgments."""
    snapshot = snapshot_of(path)
    return snapshot is not None and REPORT_FILE in {file.name for file in snapshot.files}


class Files(NamedTuple):
    """The files of one kind of data."""

    train: tuple[Artifact, ...] = ()
    held_out: tuple[Artifact, ...] = ()
    judged: tuple[Artifact, ...] = ()
    """To train on, of people's judgments."""
    judged_held_out: tuple[Artifact, ...] = ()

    @classmethod
    def of(cls, inputs: CollectInputs, kind: DataKind) -> Self:
        """Those of the stage's inputs."""
        train, judged = _divide(getattr(inputs, kind))
        held_out, judged_held_out = _divide(getattr(inputs, f"{kind}_held_out"))
        return cls(train, held_out, judged, judged_held_out)

    @property
    def is_held_out_judgments_alone(self) -> bool:
        """Whether all there is are judgments of the random share: no data to train on yet, which
        fetch has said."""
        return not (self.train or self.held_out or self.judged)


def reserved_prompts(inputs: CollectInputs) -> frozenset[str]:
    """The normalised prompts that no training record may have."""
    return frozenset(
        prompt_key("prompts", row)
        for artifact in inputs.reserved
        for row in read_jsonl(artifact.locate())
    )


def write_reports(inputs: CollectInputs, out_dir: Path) -> dict[str, float]:
    """Copy the report on each snapshot of judgments to ``feedback/<digest>.json``, so that it is
    kept with the run, and return the figures for its metrics. They name nobody."""
    artifacts = {artifact for kind in DATA_KINDS for artifact in Files.of(inputs, kind)[2:]}
    snapshots = {
        snapshot.digest: snapshot
        for artifact in itertools.chain(*artifacts)
        if (snapshot := snapshot_of(artifact.locate()))
    }
    metrics: Counter[str] = Counter()
    for digest, snapshot in sorted(snapshots.items()):
        path = cache_folder() / snapshot.folder / REPORT_FILE
        report = read_report(path)
        (out_dir / REPORTS).mkdir(exist_ok=True)
        target = out_dir / REPORTS / f"{short_digest(digest)}.json"
        write_atomically(target, path.read_text(encoding="utf-8"))
        for kind, count in report.by_kind.items():
            metrics[f"feedback_judgments_{kind}"] += count
        metrics["feedback_annotators"] += len(report.annotators)
        metrics["feedback_annotators_left_out"] += sum(
            bool(one.left_out) for one in report.annotators
        )
        metrics["feedback_conflicts"] += report.num_conflicts
        if len(snapshots) == 1:
            found = {kind: alpha for kind, alpha in report.alpha.items() if alpha is not None}
            metrics.update({f"feedback_alpha_{kind}": alpha for kind, alpha in found.items()})
    return {name: float(value) for name, value in metrics.items()}


def judged_metrics(
    kind: DataKind, files: Files, manifest: dict[str, dict[str, Any]], folder: Path
) -> dict[str, float]:
    """How many of the kind's rows come from judgments: ``<kind>_feedback`` and
    ``<kind>_held_out_feedback``; of preferences by who judged: ``…_human`` and ``…_ai``. Besides
    ``<kind>_reserved``, the rows that their prompts keep out of training."""
    metrics: dict[str, float] = {}
    reserved = sum(entry.get("reserved", 0) for entry in manifest["train"]["files"])
    if reserved:
        metrics[f"{kind}_reserved"] = float(reserved)
    if not (files.judged or files.judged_held_out):
        return metrics
    for split, name in (("train", f"{kind}_feedback"), ("held_out", f"{kind}_held_out_feedback")):
        if kind == "preferences":
            counts = Counter(row.get("source") for row in read_jsonl(folder / f"{split}.jsonl"))
            metrics |= {f"{name}_{who}": float(counts[of]) for who, of in SOURCES.items()}
        else:
            entries = manifest[split]["files"]
            judged = [entry for entry in entries if is_judged(data_root() / entry["path"])]
            metrics[name] = float(sum(entry["rows"] for entry in judged))
    return metrics


# ------------------------------------------------------------------------------------ helpers


def _divide(artifacts: Iterable[Artifact]) -> tuple[tuple[Artifact, ...], tuple[Artifact, ...]]:
    """The files that are not of judgments, and those that are."""
    sides: tuple[list[Artifact], list[Artifact]] = [], []
    for artifact in artifacts:
        sides[is_judged(artifact.locate())].append(artifact)
    return tuple(sides[0]), tuple(sides[1])
