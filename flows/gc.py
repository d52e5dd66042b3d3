"""``rlhf gc``: find what nothing needs any more below ``runs``, and remove it.

A result is needed where a kept run or a registered model with an alias refers to it, and so is all
that it was made from.
"""

import re
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from flows.made_from import read_folders, read_json, results_in
from flows.plan import OUTPUTS, OUTSIDE_PIPELINE
from flows.waste import (
    REMOVED,
    Key,
    Place,
    Waste,
    changed_at,
    entries,
    is_locked,
    num_bytes,
    remove,
    stage_places,
)
from stages.core import tracking
from stages.core.artifacts import RESULT_FILE, data_root
from stages.core.errors import UserError
from stages.core.fetch.snapshots import PART, SNAPSHOT_FILE, cache_folder
from stages.core.launch import SPEC_FILE

REPLAY_FILE = re.compile(r"(.+)-\d{8}-\d{6}\.json")
FETCHED = ".fetch-"
DAY_SECONDS = 86400.0
IDLE_SECONDS = 3600.0
"""What has no lock counts as in use for so long after its last change."""


def clean_up(console: Console, keep_runs: int, older_than_days: float, apply: bool) -> None:
    """Show what nothing needs; remove it with ``apply``.

    Raises:
        UserError: what is needed cannot be found out, or something cannot be removed.
    """
    found, elsewhere = find(keep_runs, older_than_days)
    if elsewhere:
        console.print(
            f"Kept, since another MLflow than {tracking.address()} tracks how they were made: "
            f"{', '.join(map(_shown, elsewhere))}\n",
            soft_wrap=True,
        )
    if not found:
        console.print("Nothing to remove.")
        return
    if _show(console, found):
        console.print("\n* MLflow has a copy, which a run that needs it fetches.")
    total = sum(waste.size_bytes for waste in found)
    if not apply:
        console.print(f"\n{decimal(total)} in all. Nothing was removed; --apply does it.")
        return
    removed, left = remove(found)
    console.print(f"\nRemoved {decimal(removed)}.")
    for waste in left:
        console.print(f"Left, since a run has taken it up meanwhile: {_shown(waste.path)}")


def find(keep_runs: int, older_than_days: float) -> tuple[list[Waste], list[Path]]:
    """What nothing needs and has not changed for so many days, and the folders that are only kept
    because this MLflow does not know the runs that made them: another one may need them.

    Raises:
        UserError: MLflow cannot be read, or is not the one that tracked these results.
    """
    references = tracking.read_references(keep_runs)
    places = stage_places()
    made_by = _made_by(places)
    _check_store(places, set(made_by.values()), references)
    oldest = time.time() - older_than_days * DAY_SECONDS
    fresh = {key for key, place in places.items() if place.changed() > oldest}
    at_work = {
        key for key, place in places.items() if not place.is_complete and is_locked(place.lock)
    }
    needed = _with_inputs(references.needed | fresh | at_work)
    unknown = {key for key, run_id in made_by.items() if run_id not in references.run_ids}
    elsewhere = [places[key].folder for key in places if key in unknown - needed]
    needed |= _with_inputs(unknown)
    found = []
    for key, place in places.items():
        if key not in needed:
            why = "only older runs have it" if key in references.named else "no run has it"
            why = why if place.is_complete else f"interrupted; {why}"
            makers = references.makers.get(key, ())
            size = sum(map(num_bytes, place.entries))
            found.append(Waste(place.folder, why, place.changed(), size, key, makers=makers))
        elif place.is_complete and place.checkpoints.exists() and key not in fresh:
            why, size = "checkpoints of a finished stage", num_bytes(place.checkpoints)
            found.append(
                Waste(place.checkpoints, why, place.changed(), size, key, only_checkpoints=True)
            )
    found += [*_leftovers(oldest), *_replay_files(oldest, keep_runs), *_downloads(oldest)]
    found += _snapshots(oldest, needed)
    return found, elsewhere


# ------------------------------------------------------------------------------------ helpers


def _made_by(places: dict[Key, Place]) -> dict[Key, str]:
    """The MLflow runs that made these results, where there were any."""
    runs = {}
    for key, place in places.items():
        mark = read_json(place.folder / RESULT_FILE)
        if isinstance(mark, dict) and mark.get("tracking_run_id"):
            runs[key] = mark["tracking_run_id"]
    return runs


def _check_store(
    places: dict[Key, Place], made_by: set[str], references: tracking.References
) -> None:
    """Refuse where MLflow knows nothing of what is here."""
    if (places and not references.run_ids) or (made_by and not made_by & references.run_ids):
        raise UserError(
            f"MLflow ({tracking.address()}) knows none of the runs that made the results in "
            f"{data_root() / 'runs'}; is MLFLOW_TRACKING_URI the one that they were made with? "
            "Nothing was removed"
        )


def _with_inputs(keys: frozenset[Key] | set[Key]) -> set[Key]:
    """These results and all that they were made from, or that lies in their outputs."""
    needed: set[Key] = set()
    waiting = set(keys)
    while waiting:
        key = waiting.pop()
        needed.add(key)
        folder = data_root() / "runs" / key[0] / key[1]
        for name in (SPEC_FILE, RESULT_FILE):
            waiting |= set(results_in(read_json(folder / name))) - needed
    return needed


def _leftovers(oldest: float) -> Iterator[Waste]:
    folders = [data_root() / "runs" / stage for stage in (*OUTPUTS, *OUTSIDE_PIPELINE)]
    folders += [*_hub_caches(), cache_folder(), *_source_folders()]
    for path in (path for folder in folders for path in entries(folder)):
        changed = changed_at(path)
        if path.name.startswith(REMOVED):
            yield Waste(path, "an interrupted rlhf gc", changed, num_bytes(path))
        elif path.name.startswith(FETCHED) and changed <= _idle(oldest):
            yield Waste(path, "an interrupted fetch", changed, num_bytes(path))


def _replay_files(oldest: float, keep_runs: int) -> Iterator[Waste]:
    of_profile: dict[str, list[Path]] = defaultdict(list)
    for path in entries(data_root() / "runs" / "configs"):
        if matched := REPLAY_FILE.fullmatch(path.name):
            of_profile[matched[1]].append(path)
    for files in of_profile.values():
        for path in sorted(files, reverse=True)[keep_runs:]:
            if changed_at(path) <= oldest:
                yield Waste(path, "an old replay file", changed_at(path), num_bytes(path))


def _downloads(oldest: float) -> Iterator[Waste]:
    """The stage that downloaded something keeps what it made of it."""
    for path in (path for folder in _hub_caches() for path in entries(folder)):
        changed = changed_at(path)
        if path.is_dir() and not path.name.startswith(".") and changed <= _idle(oldest):
            yield Waste(path, "a download, made again when needed", changed, num_bytes(path))


def _snapshots(oldest: float, needed: set[Key]) -> Iterator[Waste]:
    """What was fetched and no kept run collected from; an interrupted fetch would go on."""
    used = set()
    for stage, key in needed:
        if stage == "collect":
            used |= read_folders((stage, key))
    for path in (path for folder in _source_folders() for path in entries(folder)):
        changed = changed_at(path / SNAPSHOT_FILE) or changed_at(path)
        if path not in used and not path.name.startswith(REMOVED) and changed <= _idle(oldest):
            why = "an interrupted fetch" if path.name == PART else "no kept run collected from it"
            yield Waste(path, why, changed, num_bytes(path))


def _source_folders() -> list[Path]:
    """One for each source, with a snapshot for each content that it had."""
    return [path for path in entries(cache_folder()) if path.is_dir() and path.name[0] != "."]


def _hub_caches() -> list[Path]:
    cache = data_root() / "cache" / "huggingface"
    return [cache / name for name in ("hub", "datasets", "xet")]


def _idle(oldest: float) -> float:
    return min(oldest, time.time() - IDLE_SECONDS)


def _show(console: Console, found: Sequence[Waste]) -> bool:
    """Print the table; return whether MLflow has a copy of something in it."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("what", no_wrap=True)
    for name in ("size", "age"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("why it goes")
    has_copies = False
    for waste in found:
        is_stored = tracking.is_stored(waste.makers)
        has_copies |= is_stored
        age = f"{(time.time() - waste.changed) / DAY_SECONDS:.0f} days" if waste.changed else ""
        why = waste.why + (" *" if is_stored else "")
        table.add_row(_shown(waste.path), decimal(waste.size_bytes), age, why)
    console.print(table)
    return has_copies


def _shown(path: Path) -> str:
    return path.relative_to(data_root()).as_posix()
