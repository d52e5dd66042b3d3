"""The process that fetches: ``python -m stages.core.fetch FOLDER`` with FOLDER/spec.json.

Started by ``flows/fetching.py``; writes FOLDER/inputs.json, the snapshots' files by kind of data.
Ends with code 2 after one ``::error`` line where only the user can mend.
"""

import datetime
import json
import os
import sys
import time
import traceback
from pathlib import Path

from stages.core import tracking
from stages.core.artifacts import Artifact, data_root, write_atomically
from stages.core.config import CollectConfig, FeedbackSource, Source
from stages.core.contracts import CollectInputs
from stages.core.errors import UserError
from stages.core.fetch.snapshots import Snapshot, cache_folder
from stages.core.fetch.sources import fetch, source_name
from stages.core.launch import SPEC_FILE, WARNING_PREFIX
from stages.core.process import end_well, is_disk_full, refuse
from stages.core.schemas import DATA_KINDS, DataKind

INPUTS_FILE = "inputs.json"
SECONDS_BETWEEN_REPORTS = 1.0
SECONDS_BETWEEN_LINES = 20.0
NOTHING_JUDGED = {
    "preferences": "pair to learn from",
    "sft": "better answer to learn from",
    "prompts": "prompt to train on",
}
"""What judgments may lack."""


def main(folder: Path) -> int:
    """Fetch what ``folder``/spec.json names and return the process's exit code."""
    end_well()
    try:
        spec = json.loads((folder / SPEC_FILE).read_text(encoding="utf-8"))
        os.chdir(spec["folder"])  # where a database's file may lie
        inputs = fetch_all(CollectConfig.model_validate(spec["config"]))
        write_atomically(folder / INPUTS_FILE, inputs.model_dump_json())
    except UserError as error:
        return refuse(str(error))
    except Exception as error:
        if is_disk_full(error):
            return refuse(f"no space left on the disk of {data_root()}; free some and run again")
        traceback.print_exc()
        return 1
    return 0


def fetch_all(config: CollectConfig) -> CollectInputs:
    """The files of all sources, by the kind of data.

    Raises:
        UserError: a source cannot be fetched; the message begins with its setting.
    """
    files: dict[str, list[Artifact]] = {}
    judgments: dict[FeedbackSource, Snapshot] = {}  # read once a run, for all kinds alike
    for kind in DATA_KINDS:
        section = getattr(config, kind)
        for name in ("urls", "hub", "sql", "s3", "feedback"):
            for number, source in enumerate(getattr(section, name)):
                setting = f"collect.{kind}.{name}.{number}"
                try:
                    snapshot = judgments.get(source) or _fetch(source)
                except UserError as error:
                    raise UserError(f"{setting}: {error}") from None
                if isinstance(source, FeedbackSource):
                    judgments[source] = snapshot
                    _add_judged(files, kind, setting, _artifacts(snapshot))
                else:
                    files.setdefault(kind, []).extend(_artifacts(snapshot))
    return CollectInputs.model_validate(files)


# ------------------------------------------------------------------------------------ helpers


def _add_judged(
    files: dict[str, list[Artifact]], kind: DataKind, setting: str, artifacts: list[Artifact]
) -> None:
    """Add the files of a snapshot of judgments that this kind of data takes."""
    by_name = {Path(artifact.path).name: artifact for artifact in artifacts}
    for field in (kind, f"{kind}_held_out", "reserved"):
        artifact = by_name.get(f"{field}.jsonl")
        if artifact is not None and artifact not in files.setdefault(field, []):
            files[field].append(artifact)
    if f"{kind}.jsonl" not in by_name:
        nothing = NOTHING_JUDGED[kind]
        print(f"{WARNING_PREFIX}{setting}: the judgments give no {nothing}", flush=True)


def _fetch(source: Source) -> Snapshot:
    """Fetch one source and say what came."""
    name = source_name(source)
    began = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    snapshot = fetch(source, cache_folder(), _Reports(name))
    count = f"{snapshot.records:,} records, " if snapshot.records is not None else ""
    size = f"{len(snapshot.files)} file(s), {count}{snapshot.size_bytes / 1e6:,.1f} MB"
    licence = f"; licence {snapshot.licence}" if snapshot.licence else ""
    is_new = snapshot.fetched_at >= began
    what = "fetched" if is_new else f"unchanged since {snapshot.fetched_at}"
    print(f"{name}: {what}: {size}, digest {snapshot.digest[:12]}{licence}", flush=True)
    return snapshot


class _Reports:
    """Tells the flow how far a source is, not more often than once a second."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._event = self._line = time.monotonic()

    def __call__(self, done: int, total: int, unit: str) -> None:
        now = time.monotonic()
        if total and (now - self._event >= SECONDS_BETWEEN_REPORTS or done == total):
            self._event = now
            tracking.report_progress(done, total, unit=unit)
        elif not total and now - self._line >= SECONDS_BETWEEN_LINES:
            self._line = now
            size = f"{done / 1e6:,.1f} MB" if unit == "bytes" else f"{done:,} {unit}"
            print(f"{self._name}: {size} so far", flush=True)


def _artifacts(snapshot: Snapshot) -> list[Artifact]:
    """The files, whose digests are known already."""
    folder = cache_folder().relative_to(data_root()) / snapshot.folder
    return [
        Artifact(kind="source", path=(folder / file.name).as_posix(), digest=file.sha256)
        for file in snapshot.files
    ]


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))
