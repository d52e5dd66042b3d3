"""The demo over several seeds: does alignment help, measurably and each time?

    python tests/benchmarks/demo_seeds.py [--seeds 0 1 2 3 4] [--set key=value …]

Prints a table with a row a seed and, as the last line, one JSON object with all figures. Data
stages are shared between the seeds; finished seeds are reused, so an interrupted run goes on.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from flows.profiles import cpu_demo, override
from stages.core.artifacts import data_root

COLUMNS = (
    "oracle_base", "oracle_sft", "oracle_policy", "oracle_sft_minus_base_low",
    "oracle_policy_minus_sft_low", "reward_model_accuracy", "length_baseline_accuracy",
    "kl_policy", "seconds",
)  # fmt: skip


def run_seed(seed: int, settings: list[str]) -> dict[str, float]:
    """Run the demo with a seed in a process of its own; return its evaluation."""
    changes = [f"seed={seed}", *settings]
    command = [sys.executable, "-m", "flows", "run", "--profile", "cpu-demo"]
    started = time.monotonic()
    subprocess.run(
        [*command, *(part for change in changes for part in ("--set", change))],
        check=True,
        stdout=sys.stderr,
    )
    config = override(cpu_demo(), dict(change.split("=", 1) for change in changes))
    metrics = _evaluation(config.model_dump(mode="json")["evaluate"])
    return metrics | {"seed": seed, "seconds": round(time.monotonic() - started, 1)}


def _evaluation(section: dict[str, object]) -> dict[str, float]:
    """Metrics of the newest evaluation made with this section of the configuration."""
    results = sorted(
        (data_root() / "runs" / "evaluate").glob("*/result.json"),
        key=lambda path: path.stat().st_mtime,
        reverse=True,
    )
    for path in results:
        if json.loads((path.parent / "spec.json").read_text())["config"] == section:
            metrics: dict[str, float] = json.loads(path.read_text())["metrics"]
            return metrics
    raise SystemExit("the run left no evaluation")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    rows = [run_seed(seed, options.set) for seed in options.seeds]
    names = [name.removeprefix("oracle_") for name in COLUMNS]
    print("seed  " + "  ".join(f"{name:>{max(len(name), 7)}}" for name in names))
    for row in rows:
        cells = [
            f"{row.get(column, float('nan')):>{max(len(name), 7)}.3f}"
            for column, name in zip(COLUMNS, names, strict=True)
        ]
        print(f"{int(row['seed']):>4}  " + "  ".join(cells))
    holds = all(
        row["oracle_sft_minus_base_low"] > 0 and row["oracle_policy_minus_sft_low"] > 0
        for row in rows
    )
    print(f"base < SFT < policy with every interval above 0 on all seeds: {holds}")
    print(json.dumps({"seeds": rows, "holds": holds}))


if __name__ == "__main__":
    main()
