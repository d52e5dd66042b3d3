"""Which results and files the stages' results were made from, by the records in their folders."""

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from flows.waste import Key, Place
from stages.core.artifacts import RESULT_FILE, data_root
from stages.core.launch import SPEC_FILE


def read_json(path: Path) -> Any:
    """What is in the file; None where it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def results_in(value: Any) -> Iterator[Key]:
    """The stages' results that artifacts in ``value`` lie in."""
    for parts in places_in(value):
        if parts[0] == "runs" and len(parts) > 2:
            yield parts[1], parts[2]


def places_in(value: Any) -> Iterator[tuple[str, ...]]:
    """Where the artifacts in ``value`` lie that are below the data root."""
    if isinstance(value, dict) and {"kind", "path", "digest"} <= value.keys():
        path = data_root() / str(value["path"])
        if path.is_relative_to(data_root()) and path != data_root():
            yield path.relative_to(data_root()).parts
    elif isinstance(value, dict):
        yield from (parts for item in value.values() for parts in places_in(item))
    elif isinstance(value, list):
        yield from (parts for item in value for parts in places_in(item))


def read_folders(key: Key) -> set[Path]:
    """The folders of fetched data that a result was made from, as ``cache/sources/…/…``."""
    spec = read_json(data_root() / "runs" / key[0] / key[1] / SPEC_FILE)
    return {data_root().joinpath(*parts[:4]) for parts in places_in(spec) if parts[0] == "cache"}


def made_from(places: Mapping[Key, Place], roots: Collection[Key]) -> set[Key]:
    """The roots, and all results on this machine that were made from them, directly or not."""
    inputs = {
        key: {
            used
            for name in (SPEC_FILE, RESULT_FILE)
            for used in results_in(read_json(place.folder / name))
        }
        for key, place in places.items()
    }
    found = set(roots)
    while more := {key for key, used in inputs.items() if used & found} - found:
        found |= more
    return found
