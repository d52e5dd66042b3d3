"""Shards are cut between lines; their tables do not depend on where or by whom they are made."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time

import polars as pl
import psutil
import pytest

from stages import clean
from stages.clean import shards as shards_module
from stages.clean.shards import cut
from stages.core.artifacts import content_digest, make_artifact
from stages.core.config import CleanConfig, Compute
from stages.core.contracts import CleanInputs, Datasets
from stages.core.errors import StageCrashedError, UserError
from stages.core.schemas import write_jsonl

WORDS = [first + last for first in "bcdfghklmnprstvw" for last in ("arbour", "illow", "eather")]


def sentence(draw):
    words = draw.choices(WORDS, k=8)
    return f"The {' of the '.join(words[:3])} and a {' '.join(words[3:])} {draw.randrange(10**6)}."


def documents(count, seed=0):
    """Texts of distinct sentences, every tenth an equal and every eleventh a near copy."""
    draw = random.Random(seed)
    texts = []
    for number in range(count):
        if number % 10 == 9:
            texts.append(texts[draw.randrange(len(texts))].upper())
        elif number % 11 == 10:
            words = texts[draw.randrange(len(texts))].split()
            texts.append(" ".join([*words, "indeed."]))
        else:
            texts.append(" ".join(sentence(draw) for _ in range(10)))
    return [{"text": text, "id": str(number)} for number, text in enumerate(texts)]


@pytest.fixture
def collected(tmp_path):
    folder = tmp_path / "collected" / "documents"
    folder.mkdir(parents=True)
    write_jsonl(folder / "train.jsonl", documents(600))
    write_jsonl(folder / "held_out.jsonl", documents(40, seed=1) + documents(20))
    return make_artifact("documents", folder)


def cleaned(collected, out_dir, compute=None, **settings):
    out_dir.mkdir(exist_ok=True)
    inputs = CleanInputs(datasets=Datasets(documents=collected))
    config = CleanConfig(**{"max_reject_share": 1.0} | settings)
    metrics = clean.run(config, inputs, compute or Compute(num_threads=1), out_dir)[1]
    assert metrics["documents_removed"] > 50
    assert not (out_dir / clean.PARTIAL).exists()
    return content_digest(out_dir)


@pytest.mark.parametrize("size", [1, 700, 10_000, 10**9])
def test_shards_are_whole_lines_in_order(tmp_path, collected, size, monkeypatch):
    monkeypatch.setattr(shards_module, "SHARD_BYTES", size)
    monkeypatch.setattr(shards_module, "READ_BYTES", 500)
    for split in ("train", "held_out"):
        path = collected.locate() / f"{split}.jsonl"
        shards = [shard for shard in cut("documents", collected, tmp_path) if shard.split == split]
        lines = path.read_bytes().splitlines(keepends=True)
        assert b"".join(shard.read() for shard in shards) == path.read_bytes()
        for shard in shards:
            first = shard.read().splitlines(keepends=True)[0]
            assert lines[shard.first_line - 1] == first


@pytest.mark.slow
def test_the_result_does_not_depend_on_shards_or_processes(tmp_path, collected, monkeypatch):
    whole = cleaned(collected, tmp_path / "whole")
    monkeypatch.setattr(shards_module, "SHARD_BYTES", 20_000)
    assert cleaned(collected, tmp_path / "cut") == whole
    assert cleaned(collected, tmp_path / "processes", Compute(num_threads=2)) == whole


def test_signatures_on_disk_give_the_same(tmp_path, collected):
    in_memory = cleaned(collected, tmp_path / "memory")
    config = {"max_memory_gb": 1e-6}
    assert cleaned(collected, tmp_path / "disk", **config) == in_memory


@pytest.mark.slow
def test_a_killed_stage_goes_on_with_the_missing_shards(tmp_path, collected, monkeypatch):
    straight = cleaned(collected, tmp_path / "straight")
    out_dir = tmp_path / "killed"
    partial = out_dir / clean.PARTIAL
    partial.mkdir(parents=True)
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from stages.clean import shards\n"
        "from stages.core.artifacts import Artifact\n"
        "from stages.core.config import CleanConfig, Compute\n"
        "shards.SHARD_BYTES = 20_000\n"
        "artifact = Artifact.model_validate_json(sys.argv[1])\n"
        "parts = shards.cut('documents', artifact, Path(sys.argv[2]))\n"
        "shards.clean_shards(parts, CleanConfig(), None, Compute(num_threads=1))\n"
    )
    command = [sys.executable, "-c", program, collected.model_dump_json(), str(partial)]
    process = subprocess.Popen(command)
    deadline = time.monotonic() + 60
    while len(list(partial.glob("*.parquet"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    tables = {path: path.stat().st_mtime_ns for path in partial.glob("*.parquet")}
    monkeypatch.setattr(shards_module, "SHARD_BYTES", 20_000)
    expected = cut("documents", collected, partial)
    assert 3 <= len(tables) < len(expected)
    shards_module.clean_shards(expected, CleanConfig(), None, Compute())
    assert tables.items() <= {p: p.stat().st_mtime_ns for p in partial.glob("*.parquet")}.items()
    assert cleaned(collected, out_dir) == straight


@pytest.mark.slow
def test_a_pools_workers_end_with_a_killed_stage(tmp_path, collected):
    program = (
        "import sys, time, multiprocessing\n"
        "from stages.clean import shards\n"
        "def wait(seconds):\n"
        "    time.sleep(seconds)\n"
        "if __name__ == '__main__':\n"
        "    from concurrent.futures import ProcessPoolExecutor\n"
        "    context = multiprocessing.get_context('spawn')\n"
        "    pool = ProcessPoolExecutor(1, context, shards._begin, (None, None))\n"
        "    pool.submit(time.sleep, 0).result()\n"
        "    print(*pool._processes, flush=True)\n"
        "    pool.submit(time.sleep, 60).result()\n"
    )
    path = tmp_path / "stage.py"
    path.write_text(program)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, str(path)], stdout=subprocess.PIPE, text=True, env=environment
    )
    worker = int(process.stdout.readline())
    process.kill()
    process.wait()
    deadline = time.monotonic() + 20
    while os.path.exists(f"/proc/{worker}/stat") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not os.path.exists(f"/proc/{worker}/stat")


@pytest.mark.slow
def test_a_killed_worker_is_said_and_the_shards_that_are_done_stay(
    tmp_path, collected, monkeypatch
):
    monkeypatch.setattr(shards_module, "SHARD_BYTES", 20_000)
    parts = cut("documents", collected, tmp_path)
    shards_module.clean_shards(parts[:2], CleanConfig(), None, Compute(num_threads=1))

    others = psutil.Process().children()  # what other tests have left

    def kill_first_worker():
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            for child in psutil.Process().children():
                if child not in others and "spawn_main" in " ".join(child.cmdline()):
                    child.kill()
                    return
            time.sleep(0.01)

    killer = threading.Thread(target=kill_first_worker)
    killer.start()
    message = "a worker process was killed, .* compute.num_threads; the shards that are done"
    with pytest.raises(StageCrashedError, match=message):
        shards_module.clean_shards(parts, CleanConfig(), None, Compute(num_threads=2))
    killer.join()
    assert all(shard.table.exists() for shard in parts[:2])
    assert os.environ.get("POLARS_MAX_THREADS") != "1"


def test_a_stage_that_was_killed_while_it_wrote_gives_the_same(tmp_path, collected):
    straight = cleaned(collected, tmp_path / "straight")
    out_dir = tmp_path / "killed"
    partial = out_dir / clean.PARTIAL
    partial.mkdir(parents=True)
    parts = cut("documents", collected, partial)
    shards_module.clean_shards(parts[:1], CleanConfig(), None, Compute(num_threads=1))
    left_over = ("documents-train-0-7.parquet", f".{parts[1].table.name}.part", "signatures.npy")
    for name in left_over:
        (partial / name).write_bytes(b"half")
    (out_dir / "documents").mkdir()
    for name in ("train.jsonl", ".held_out.jsonl.part"):
        (out_dir / "documents" / name).write_bytes(b'{"text": "ha')
    for name in (".rejects.jsonl.zst.part", "rejects.jsonl.zst", "report.md"):
        (out_dir / name).write_bytes(b"half")
    assert cleaned(collected, out_dir) == straight


# ----------------------------------------------------------------------------------------- Ray


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.slow
def test_a_cluster_of_two_nodes_gives_the_same_files(tmp_path, collected, monkeypatch):
    from ray.cluster_utils import Cluster

    whole = cleaned(collected, tmp_path / "here")
    # Only the driver's process reads and writes files, so its shards are small.
    monkeypatch.setattr(shards_module, "SHARD_BYTES", 60_000)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    node = {"num_cpus": 1, "object_store_memory": 100 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    try:
        cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)
        compute = Compute(ray_address=cluster.address)
        assert cleaned(collected, tmp_path / "cluster", compute) == whole
    finally:
        cluster.shutdown()


def test_a_cluster_that_is_not_there_is_said_at_once(tmp_path, collected):
    compute = Compute(ray_address=f"127.0.0.1:{free_port()}")
    with pytest.raises(UserError, match=r"compute\.ray_address=127\.0\.0\.1:\d+: .*refused"):
        cleaned(collected, tmp_path / "out", compute)


def test_the_table_tells_line_bytes_and_rule(tmp_path, collected):
    parts = cut("documents", collected, tmp_path)
    shards_module.clean_shards(parts, CleanConfig(), None, Compute())
    table = pl.read_parquet(parts[-1].table)
    lines = parts[-1].read()
    row = table.row(7, named=True)
    assert json.loads(lines[row["start"] : row["end"]])["id"] == "7"
    assert (row["line"], row["row"], row["rule"], row["language"]) == (7, None, None, "en")
