"""What a reviewer left behind: judgments, snapshots of them, results and models made from those.

Snapshots and results know annotators by pseudonym alone, and the reports on the judgments that they
hold say whose they are. What learned from them is found by the records of the stages' folders and,
for results of other machines, by the runs in MLflow.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from flows.made_from import made_from, read_folders
from flows.waste import Key, Place, Waste, changed_at, entries, num_bytes, remove, stage_places
from stages.core import tracking
from stages.core.errors import UserError
from stages.core.feedback.report import REPORT_FILE, REPORTS, FeedbackReport, short_digest
from stages.core.fetch.snapshots import PART, cache_folder, read_snapshot
from stages.core.tracking.lineage import FEEDBACK_SNAPSHOT

DATA_STAGES = ("collect", "clean")
"""Stages whose results hold the judgments themselves; the later ones only learned from them."""


@dataclass(frozen=True)
class Withdrawal:
    """All that a reviewer left."""

    experiment: str
    reviewer: str
    pseudonym: str
    num_judgments: int
    """Pairs on which they said something."""
    queues: tuple[str, ...]
    """Names of the queues that ask them."""
    snapshots: tuple[Waste, ...]
    results: tuple[Waste, ...]
    """Of the data stages, on this machine."""
    copies: tuple[str, ...]
    """Stage runs in MLflow whose artifacts have a copy of such a result."""
    models: tuple[Key, ...]
    """Results on this machine that learned from the data."""
    runs: tuple[tracking.RunLine, ...]
    """Pipeline runs that used the data."""
    versions: tuple[tracking.VersionLine, ...]
    """Registered policies that these runs made."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing is to be removed."""
        return not (
            self.num_judgments or self.queues or self.snapshots or self.results or self.copies
        )

    @property
    def size_bytes(self) -> int:
        """Of the files that go."""
        return sum(waste.size_bytes for waste in (*self.snapshots, *self.results))


def find(experiment: str, reviewer: str) -> Withdrawal:
    """What the reviewer left. Nothing is changed."""
    login = reviewer.strip().lower()
    alias = tracking.pseudonym(experiment, reviewer)
    names = {alias, reviewer.strip()}  # a model is called by its name in snapshots, too
    said = tracking.annotators(experiment)
    queues = [
        state.name
        for state in tracking.queue_states(experiment)
        if login in [user.lower() for user in state.users]
    ]
    places, history = stage_places(), tracking.read_history()
    snapshots = list(_snapshots(experiment, names))
    roots = _collected(places, history, experiment, names, {path for path, _ in snapshots})
    keys = made_from(places, roots)
    digests = {digest for _, digest in snapshots if digest}
    runs = [
        line
        for run_id, line in history.pipelines.items()
        if any(run_id in history.users.get(key, ()) for key in keys)
        or _mentions(line.tags, digests, alias)
    ]
    run_ids = {line.run_id for line in runs}
    return Withdrawal(
        experiment=experiment,
        reviewer=reviewer.strip(),
        pseudonym=alias,
        num_judgments=sum(count for name, count in said.items() if name.lower() == login),
        queues=tuple(sorted(queues)),
        snapshots=tuple(
            Waste(path, "a snapshot of judgments", changed_at(path), num_bytes(path))
            for path, _ in snapshots
        ),
        results=tuple(
            _result(key, places[key])
            for key in sorted(keys)
            if key in places and key[0] in DATA_STAGES
        ),
        copies=tuple(
            run_id
            for key in sorted(keys)
            if key[0] in DATA_STAGES
            for run_id in history.makers.get(key, ())
            if tracking.has_copy(run_id)
        ),
        models=tuple(sorted(key for key in keys if key[0] not in DATA_STAGES)),
        runs=tuple(runs),
        versions=tuple(
            line
            for line in tracking.policy_versions()
            if line.tags.get("parent_run") in run_ids or _mentions(line.tags, digests, alias)
        ),
    )


def remove_all(found: Withdrawal) -> tuple[tracking.Removed, list[Waste]]:
    """Remove what was found. What learned from it is tagged first and the judgments go last, so
    that a call which is killed can be made again.

    Returns:
        What was taken from the review pages, and what a run has taken up meanwhile.

    Raises:
        UserError: a run is using the data, or something cannot be removed.
    """
    if running := [line.name for line in found.runs if line.state == "running"]:
        raise UserError(
            f"{', '.join(running)}: is running on data with these judgments: wait for its end or "
            "cancel it, then run rlhf forget again; nothing was removed"
        )
    for line in found.runs:
        tracking.tag_run(line.run_id, {tracking.WITHDRAWN: _with(line.tags, found.pseudonym)})
    for version in found.versions:
        tracking.tag_version(
            version.number, {tracking.WITHDRAWN: _with(version.tags, found.pseudonym)}
        )
    for run_id in found.copies:
        tracking.remove_copy(run_id)
    _, left = remove([*found.results, *found.snapshots])
    return tracking.remove_reviewer(found.experiment, found.reviewer), left


# ------------------------------------------------------------------------------------ helpers


def _snapshots(experiment: str, names: set[str]) -> Iterator[tuple[Path, str]]:
    """The snapshots with judgments by one of these annotators, and their digests; broken-off
    fetches of them, too."""
    for source in (path for path in entries(cache_folder()) if path.is_dir()):
        for folder in (path for path in entries(source) if path.is_dir()):
            text = _text(folder / REPORT_FILE)
            if folder.name == PART:
                rows = _text(folder / "preferences.jsonl") + _text(folder / "sft.jsonl")
                is_theirs = any(name in text + rows for name in names)
            else:
                is_theirs = _is_by(text, experiment, names)
            if is_theirs:
                snapshot = read_snapshot(folder)
                yield folder, short_digest(snapshot.digest) if snapshot else ""


def _collected(
    places: Mapping[Key, Place],
    history: tracking.History,
    experiment: str,
    names: set[str],
    snapshots: set[Path],
) -> set[Key]:
    """The results of collect that hold these annotators' judgments, here and in MLflow."""
    found = set()
    for key, place in places.items():
        if key[0] == "collect":
            texts = map(_text, sorted((place.folder / REPORTS).glob("*.json")))
            if read_folders(key) & snapshots or any(
                _is_by(text, experiment, names) for text in texts
            ):
                found.add(key)
    for key, run_ids in history.makers.items():
        if key[0] == "collect" and key not in places:
            stored = (text for run_id in run_ids for text in tracking.stored_texts(run_id, REPORTS))
            if any(_is_by(text, experiment, names) for text in stored):
                found.add(key)
    return found


def _is_by(text: str, experiment: str, names: set[str]) -> bool:
    """Whether a report on judgments names one of these annotators."""
    if not text:
        return False
    try:
        report = FeedbackReport.model_validate_json(text)
    except ValidationError:  # damaged, or another's file of this name
        return False
    return report.experiment == experiment and bool(names & report.by_annotator.keys())


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def _result(key: Key, place: Place) -> Waste:
    size = sum(map(num_bytes, place.entries))
    return Waste(place.folder, "data with their judgments", place.changed(), size, key)


def _mentions(tags: Mapping[str, str], digests: set[str], alias: str) -> bool:
    """Whether a run or version says itself that it learned from one of the snapshots, or that this
    annotator has taken back what it learned from."""
    read = set(tags.get(FEEDBACK_SNAPSHOT, "").split(","))
    return bool(read & digests) or alias in tags.get(tracking.WITHDRAWN, "").split(",")


def _with(tags: Mapping[str, str], alias: str) -> str:
    known = set(filter(None, tags.get(tracking.WITHDRAWN, "").split(",")))
    return ",".join(sorted(known | {alias}))
