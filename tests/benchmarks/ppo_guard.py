"""The guard against a reward that can be gamed: does it act, and is what it keeps better?

    python tests/benchmarks/ppo_guard.py [--seeds 0] [--set key=value …]

Runs the demo's PPO on a reward with a flaw, a bonus for each word, three times: without guard, with
one that stops, and with one that raises the KL coefficient. The guard watches the demo's oracle,
which is not optimised. The evaluation then asks the oracle about the policies' replies to held-out
prompts. Prints a table and, as the last line, one JSON object with all figures.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from demo_seeds import run_seed

HERE = Path(__file__).resolve().parent
FLAWED = (
    f"ppo.scorers.words={HERE}/flawed_reward.py:words",
    "ppo.scorers.oracle=data/samples/oracle.py:score",
    "ppo.scorer_weights.words=1.0",
    "ppo.guard.scorer=oracle",
    "ppo.clip_score=20",
    "ppo.kl_coef=0.02",
    "ppo.guard.kl_ceiling=1000",
)
ACTIONS = ("warn", "stop", "raise_kl")
COLUMNS = ("oracle_sft", "oracle_policy", "kl_policy", "length_policy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    rows = [
        run_seed(seed, [*FLAWED, f"ppo.guard.action={action}", *options.set]) | {"action": action}
        for seed in options.seeds
        for action in ACTIONS
    ]
    print("seed  action    " + "  ".join(f"{name:>13}" for name in COLUMNS))
    for row in rows:
        cells = "  ".join(f"{row[column]:>13.3f}" for column in COLUMNS)
        print(f"{int(row['seed']):>4}  {row['action']:<8}  {cells}")
    print(json.dumps({"runs": rows}))


if __name__ == "__main__":
    main()
