"""Collected files cut into shards, and the shards cleaned: here, in processes, or on Ray.

Each shard's table is written by temporary file and rename, so that a stage that was killed goes on
with the shards that are missing.
"""

import io
import multiprocessing
import os
import socket
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from stages.clean.shard import DamagedRowError, ShardSettings, clean_shard
from stages.core import tracking
from stages.core.artifacts import Artifact
from stages.core.config import CleanConfig, Compute
from stages.core.errors import StageCrashedError, UserError
from stages.core.evaluation_overlap import EvaluationIndex
from stages.core.schemas import DataKind

SHARD_BYTES = 8 * 2**20
"""A worker's memory is a multiple of this, whatever the size of the data."""
READ_BYTES = 2**20
CONNECT_SECONDS = 5
SPLITS = ("held_out", "train")
"""In the order of comparing: training records that are also held out are removed."""


class Shard(NamedTuple):
    """A range of a collected file, cut between lines."""

    kind: DataKind
    split: str
    path: Path
    start: int
    end: int
    first_line: int
    """From 1."""
    table: Path
    """Where its verdicts lie once it is cleaned."""

    def read(self) -> bytes:
        """Its lines."""
        with self.path.open("rb") as file:
            file.seek(self.start)
            return file.read(self.end - self.start)


def cut(kind: DataKind, artifact: Artifact, folder: Path) -> list[Shard]:
    """The shards of both splits of one kind of data, the held-out ones first."""
    shards: list[Shard] = []
    for split in SPLITS:
        path = artifact.locate() / f"{split}.jsonl"
        for start, end, line in _ranges(path):
            # Named by its range: of shards that were cut otherwise, no table is taken up.
            table = folder / f"{kind}-{split}-{start}-{end}.parquet"
            shards.append(Shard(kind, split, path, start, end, line, table))
    return shards


def _ranges(path: Path) -> Iterator[tuple[int, int, int]]:
    """Start, end and first line of each shard of a file."""
    size, start, line = path.stat().st_size, 0, 1
    with path.open("rb") as file:
        while start < size:
            file.seek(start)
            lines, at = 0, start
            while at < min(start + SHARD_BYTES, size):
                block = file.read(min(READ_BYTES, start + SHARD_BYTES - at))
                lines += block.count(b"\n")
                at += len(block)
                ends_a_line = block.endswith(b"\n")
            if not ends_a_line and at < size:
                at += len(file.readline())
                lines += 1
            yield start, at, line
            start, line = at, line + lines


def clean_shards(
    shards: list[Shard], config: CleanConfig, evaluation: EvaluationIndex | None, compute: Compute
) -> None:
    """Write the table of each shard that has none yet.

    Raises:
        UserError: the Ray cluster cannot be reached, or lacks this project.
        StageCrashedError: a worker was killed.
    """
    total = sum(shard.end - shard.start for shard in shards)
    missing = [shard for shard in shards if not shard.table.exists()]
    done = total - sum(shard.end - shard.start for shard in missing)
    workers = compute.num_threads or len(os.sched_getaffinity(0))
    if compute.ray_address and missing:
        finished = _on_ray(missing, config, evaluation, compute.ray_address)
    elif workers == 1 or total - done <= SHARD_BYTES:  # less work than to start a process
        finished = _here(missing, config, evaluation)
    else:
        finished = _in_processes(missing, config, evaluation, min(workers, len(missing)))
    for shard in finished:
        done += shard.end - shard.start
        tracking.report_progress(-(-done // 10**6), -(-total // 10**6), data=shard.kind, unit="MB")


def write_table(path: Path, table: pl.DataFrame) -> None:
    """Write a shard's table, whole or not at all."""
    file = io.BytesIO()
    table.write_parquet(file, compression="lz4", statistics=False)
    _write(path, file.getvalue())


def _write(table: Path, content: bytes) -> None:
    part = table.with_name(f".{table.name}.part")
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(table)


def _here(
    shards: Iterable[Shard], config: CleanConfig, evaluation: EvaluationIndex | None
) -> Iterator[Shard]:
    for shard in shards:
        settings = ShardSettings(config, shard.kind, shard.split)
        try:
            table = clean_shard(shard.read(), settings, evaluation)
        except DamagedRowError as error:
            line = shard.first_line + error.line
            raise UserError(
                f"{shard.path}:{line}: damaged row; make the file again with --fresh"
            ) from None
        _write(shard.table, table)
        yield shard


# ----------------------------------------------------------------------------------- processes

_worker: dict[str, Any] = {}


def _begin(config: CleanConfig, evaluation: EvaluationIndex | None) -> None:
    _worker.update(config=config, evaluation=evaluation)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A pool's workers would outlive a stage that was killed, waiting for more to do."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _clean_one(shard: Shard) -> Shard:
    return next(_here([shard], _worker["config"], _worker["evaluation"]))


def _in_processes(
    shards: list[Shard], config: CleanConfig, evaluation: EvaluationIndex | None, workers: int
) -> Iterator[Shard]:
    # A process a core, so one thread each; read when a worker imports the libraries.
    threads = {"POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1"}
    before = {name: os.environ.get(name) for name in threads}
    os.environ.update(threads)
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(workers, context, _begin, (config, evaluation)) as pool:
            try:
                limit = 2 * workers
                yield from _as_done(shards, lambda shard: pool.submit(_clean_one, shard), limit)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)  # else it would clean those first
                raise
    except BrokenProcessPool as error:
        raise StageCrashedError(
            "clean: a worker process was killed, most likely for want of memory: use fewer with "
            "compute.num_threads; the shards that are done are kept"
        ) from error
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _as_done(shards: list[Shard], submit: Any, limit: int) -> Iterator[Shard]:
    """What ``submit`` gives for each shard, at most ``limit`` of them under way."""
    waiting, running = iter(shards), set[Future[Shard]]()
    while True:
        for shard in waiting:
            running.add(submit(shard))
            if len(running) >= limit:
                break
        if not running:
            return
        done, running = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            yield future.result()


# ----------------------------------------------------------------------------------------- Ray


def _on_ray(
    shards: list[Shard], config: CleanConfig, evaluation: EvaluationIndex | None, address: str
) -> Iterator[Shard]:
    """The same function as tasks of a cluster. Lines and tables travel through Ray: its nodes need
    this project installed, but no file of ours."""
    ray = _connect(address)
    try:
        task = ray.remote(clean_shard)
        index = ray.put(evaluation)
        limit = 2 * max(int(ray.cluster_resources().get("CPU", 1)), 1)
        running: dict[Any, Shard] = {}
        waiting = iter(shards)
        while True:
            for shard in waiting:
                settings = ShardSettings(config, shard.kind, shard.split)
                running[task.remote(shard.read(), settings, index)] = shard
                if len(running) >= limit:
                    break
            if not running:
                return
            done, _ = ray.wait(list(running))
            for reference in done:
                shard = running.pop(reference)
                _write(shard.table, ray.get(reference))
                yield shard
    except ray.exceptions.RayError as error:
        raise UserError(
            f"compute.ray_address={address}: {' '.join(str(error).split())[:300]}; the nodes need "
            "the same rlhf-flows installed"
        ) from error
    finally:
        ray.shutdown()


def _connect(address: str) -> Any:
    try:
        import ray
    except ImportError:
        raise UserError("compute.ray_address is set: pip install 'rlhf-flows[ray]'") from None
    host, _, port = address.rpartition("/")[2].rpartition(":")
    if port.isdigit():  # Ray itself tries for minutes
        try:
            socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
        except OSError as error:
            raise UserError(
                f"compute.ray_address={address}: {error}; start the cluster or mend the address"
            ) from error
    try:
        ray.init(
            address=address, log_to_driver=False, include_dashboard=False, logging_level="error"
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UserError(f"compute.ray_address={address}: {error}") from error
    return ray
