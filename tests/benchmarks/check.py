"""How fast ``rlhf check`` reads, and in how much memory.

    python tests/benchmarks/check.py [--rows 1000000] [--repeats 3]

Writes files of generated records, checks each in a process of its own, and prints the best of
``--repeats`` as MB of JSON per second of one core (MB divided by CPU seconds of all threads) and
the peak memory. Gzip counts by what comes out. The last line is one JSON object.
"""

import argparse
import gzip
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
WORDS = 20_000
LETTERS = "eeeetttaaooiinnsshhrrddlcumwfgypbvk"

MEASURE = """
import json, resource, sys, time
started = time.perf_counter()
import stages.core.data_check as data_check
before, cpu = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
report = data_check.check_files([sys.argv[1]], context=2048)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
megabytes = sum(file.bytes for file in report.files) / 1e6
print(json.dumps({
    "megabytes": megabytes, "records": report.records, "usable": report.usable,
    "cpu_seconds": time.process_time() - cpu, "seconds": time.perf_counter() - started,
    "peak_mb": after / 1024, "peak_mb_over_imports": (after - before) / 1024,
    "findings": {item.code: item.count for item in report.findings},
}))
"""


def _texts(seed: int) -> Callable[[int, int], str]:
    """Makes texts of between so many words, some of them with signs outside ASCII."""
    chance = random.Random(seed)
    words = ["".join(chance.choices(LETTERS, k=chance.randint(1, 10))) for _ in range(WORDS)]
    words += ["naïve", "“quoted”", "日本語", "1,234", "\n\n", "e.g."] * 40

    def text(least: int, most: int) -> str:
        return " ".join(chance.choices(words, k=chance.randint(least, most)))

    return text


def sft_rows(count: int) -> Iterator[dict[str, object]]:
    """Prompts and completions."""
    text = _texts(0)
    for number in range(count):
        yield {"prompt": f"{number}: {text(5, 40)}?", "completion": text(20, 120)}


def message_rows(count: int) -> Iterator[dict[str, object]]:
    """Conversations of two turns and a system message."""
    text = _texts(1)
    for number in range(count):
        contents = (text(3, 10), f"{number}: {text(5, 40)}?", text(20, 120))
        roles = ("system", "user", "assistant")
        pairs = zip(roles, contents, strict=True)
        yield {"messages": [{"role": role, "content": content} for role, content in pairs]}


def preference_rows(count: int) -> Iterator[dict[str, object]]:
    """Pairs."""
    text = _texts(2)
    for number in range(count):
        yield {
            "prompt": f"{number}: {text(5, 40)}?",
            "chosen": text(20, 120),
            "rejected": text(20, 120),
            "source": "generated",
        }


def faulty_sft_rows(count: int) -> Iterator[dict[str, object]]:
    """Prompts and completions with a wrong type in one record of 2,000: no block is plain."""
    for number, row in enumerate(sft_rows(count)):
        yield row | {"prompt": 5} if number % 2000 == 7 else row


def _write(path: Path, rows: Iterator[dict[str, object]]) -> None:
    lines = (json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)
    with path.open("wb") as file:
        if path.suffix == ".gz":
            with gzip.open(file, "wb", 1) as packed:
                packed.writelines(lines)
        else:
            file.writelines(lines)


def measure(path: Path) -> dict[str, float]:
    """One check in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
    )
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    cases = {
        "sft.jsonl": (sft_rows, options.rows),
        "sft.jsonl.gz": (sft_rows, options.rows // 5),
        "messages.jsonl": (message_rows, options.rows // 5),
        "preferences.jsonl": (preference_rows, options.rows // 5),
        "faulty_sft.jsonl": (faulty_sft_rows, options.rows // 5),
    }
    results: dict[str, float] = {}
    print(f"{'file':<20}{'rows':>10}{'MB':>7}{'MB/s/core':>11}{'MB/s':>7}{'peak MB':>9}")
    with tempfile.TemporaryDirectory(prefix="rlhf-check-") as folder:
        for name, (rows, count) in cases.items():
            path = Path(folder) / name
            _write(path, rows(count))
            runs = [measure(path) for _ in range(options.repeats)]
            path.unlink()
            best = min(runs, key=lambda run: run["cpu_seconds"])
            per_core = best["megabytes"] / best["cpu_seconds"]
            wall = best["megabytes"] / min(run["seconds"] for run in runs)
            print(
                f"{name:<20}{int(best['records']):>10,}{best['megabytes']:>7.0f}{per_core:>11.0f}"
                f"{wall:>7.0f}{best['peak_mb']:>9.0f}",
                flush=True,
            )
            key = name.replace(".", "_")
            results[f"{key}_mb_per_s_core"] = round(per_core, 1)
            results[f"{key}_peak_mb"] = round(best["peak_mb"])
    print(json.dumps({"mb_per_s_core": results["sft_jsonl_mb_per_s_core"], **results}))


if __name__ == "__main__":
    main()
