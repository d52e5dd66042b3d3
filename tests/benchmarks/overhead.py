"""What orchestration costs: a real run's time outside its stages, and a run that reuses everything.

    python tests/benchmarks/overhead.py [--profile cpu-demo] [--set key=value …] [--repeats 3]

Starts a Prefect server in a folder of its own, runs the profile from scratch, then ``--repeats``
times again with all stages reused. Prints a table and, as the last line, one JSON object.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from flows.environment import prepare


def run(profile: str, settings: list[str]) -> float:
    """Run the profile in a process of its own, as on a terminal; return its seconds."""
    command = [sys.executable, "-m", "flows", "run", "--profile", profile]
    options = [part for setting in settings for part in ("--set", setting)]
    started = time.monotonic()
    subprocess.run([*command, *options], check=True, stdout=sys.stderr)
    return time.monotonic() - started


def stage_seconds(root: Path) -> dict[str, float]:
    """Seconds that each stage's work took in its process, by the results below ``root``."""
    results = [json.loads(path.read_text()) for path in root.glob("runs/*/*/result.json")]
    return {result["stage"]: result["seconds"] for result in results}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="cpu-demo")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rlhf-overhead-") as folder:
        root = Path(folder) / "data"
        os.environ["RLHF_DATA_ROOT"] = str(root)
        prepare()
        from flows import servers

        server = servers.start_prefect(standing=True)
        with servers.stopped_at_exit(server):
            servers.wait_until_healthy(server)
            os.environ["PREFECT_API_URL"] = f"{server.url}/api"
            whole = run(options.profile, options.set)
            stages = stage_seconds(root)
            reused = [run(options.profile, options.set) for _ in range(options.repeats)]
    inside = sum(stages.values())
    figures = {
        "whole_seconds": round(whole, 1),
        "stage_seconds": round(inside, 1),
        "outside_share": round(1 - inside / whole, 4),
        "outside_seconds_a_stage": round((whole - inside) / len(stages), 2),
        "reused_seconds_median": round(statistics.median(reused), 1),
    }
    for name, seconds in stages.items():
        print(f"{name:<16} {seconds:7.1f} s")
    for name, value in figures.items():
        print(f"{name:<26} {value}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
