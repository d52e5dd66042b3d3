"""How the memory of cleaning grows with the corpus.

    python tests/benchmarks/cleaning_memory.py [--megabytes 250 500 1000 2000] [--workers 2]

Cleans corpora of several sizes (``cleaning_corpus.py``, made on disk block by block), each in a
process of its own, and prints a table, the curve's figures as one JSON object on the last line, and
memory.png in --work. Memory is the largest sum over the process tree (proportional set size), CPU
time that of the process and its children without Python's start and the imports.
"""

import argparse
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from cleaning_corpus import SHARED, write_corpus
from cleaning_job import Job, Measured, run_job

from flows.environment import STAGE_ENVIRONMENT
from stages.core.artifacts import data_root

HERE = Path(__file__).resolve().parent


def main() -> None:
    options = parse_options()
    options.work.mkdir(parents=True, exist_ok=True)
    points = []
    print("| MB of text | documents | wall, s | CPU-s | MB/s a core | peak MB |")
    print("|---:|---:|---:|---:|---:|---:|", flush=True)
    for megabytes in options.megabytes:
        measured = clean_once(options, megabytes)
        point = {
            "megabytes": megabytes,
            "documents": measured.metrics["documents_train_read"],
            "wall_seconds": round(measured.wall_seconds, 1),
            "cpu_seconds": round(measured.cpu_seconds, 1),
            "mb_per_s_core": round(megabytes / measured.cpu_seconds, 2),
            "peak_mb": round(measured.peak_mb),
        }
        points.append(point)
        print(f"| {' | '.join(f'{value:g}' for value in point.values())} |", flush=True)
    draw(points, options.work / "memory.png")
    print(json.dumps({"workers": options.workers, "points": points}))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--megabytes", nargs="+", type=int, default=[250, 500, 1000, 2000], help="sizes of corpora"
    )
    parser.add_argument("--workers", type=int, default=2, help="processes; default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the corpora; default: %(default)s")
    parser.add_argument(
        "--max-memory-gb",
        type=float,
        default=0,
        help="budget of the table for near duplicates (clean.max_memory_gb); 0: its default",
    )
    parser.add_argument("--shared", type=Path, default=SHARED, help="data; default: %(default)s")
    parser.add_argument(
        "--work",
        type=Path,
        default=data_root() / "cache" / "cleaning_memory",
        help="folder for one corpus at a time and what cleaning makes of it (8 GB for 2 GB of "
        "text); default: %(default)s",
    )
    return parser.parse_args()


def clean_once(options: argparse.Namespace, megabytes: int) -> Measured:
    """Make a corpus, clean it, and remove both."""
    corpus, out = options.work / "corpus", options.work / "out"
    for folder in (corpus, out):
        shutil.rmtree(folder, ignore_errors=True)
    write_corpus(corpus, megabytes, options.seed, options.shared)
    settings: dict[str, Any] = {}
    if options.max_memory_gb:
        settings["max_memory_gb"] = options.max_memory_gb
    job = Job(
        corpus=str(corpus.resolve() / "documents"),
        out=str(out.resolve()),
        workers=options.workers,
        evaluation=tuple(map(str, sorted((options.shared / "eval").rglob("*.jsonl.gz")))),
        settings=settings,
    )
    environment = {**os.environ, **STAGE_ENVIRONMENT, "RLHF_DATA_ROOT": str(options.work.resolve())}
    environment.pop("PYTHONPATH", None)
    measured = run_job([sys.executable, HERE / "cleaning_our_side.py"], job, environment)
    for folder in (corpus, out):
        shutil.rmtree(folder)
    return measured


def draw(points: list[dict[str, Any]], path: Path) -> None:
    """Peak memory over the size of the corpus."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5, 3.2), layout="constrained")
    sizes = [point["megabytes"] / 1000 for point in points]
    axes.plot(sizes, [point["peak_mb"] / 1000 for point in points], marker="o")
    axes.set(xlabel="text, GB", ylabel="peak memory, GB", xlim=0, ylim=0)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
