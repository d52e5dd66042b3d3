"""Kill -9 at random moments: does every run end by itself, and like an undisturbed one?

    python tests/benchmarks/chaos.py [--kills 20] [--seed 0] [--size toy|demo] [--victims stage …]

Starts a Prefect server, an MLflow server and a worker, and plays the manager that restarts them. An
undisturbed run of ``align/cpu-demo`` gives the digests of all results. Each episode then runs it
again from nothing, with a data root and an MLflow database of its own, and kills one victim once.
Nobody helps. Prints a row an episode and, as the last line, one JSON object.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import httpx
import psutil
from chaos_machine import Machine

from flows import access
from flows.environment import prepare
from flows.plan import planned_stages
from flows.profiles import cpu_demo, override
from tests.flows.test_align import SETTINGS

VICTIMS = ("stage", "flow", "worker", "prefect's worker", "its parent", "prefect", "mlflow", "all")
TERMINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
LATEST_SHARE = 0.95
"""Kills come no later than this share of the undisturbed run's time."""
MAX_SECONDS = 1200.0
"""An episode that has not ended by then is lost."""
SETTLING_SECONDS = 60.0
"""Prefect's task runs may be set right so long after their flow run has ended."""

Digests = dict[str, Any]
Moment = tuple[str, float, float]
"""A stage, or "" for the time before the first; seconds since it began; when that was, in the
undisturbed run."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", choices=("toy", "demo"), default="toy")
    parser.add_argument("--victims", nargs="+", choices=VICTIMS, default=list(VICTIMS))
    parser.add_argument("--until", default="", metavar="STAGE", help="only the chain's beginning")
    help_away = "seconds until a service that was killed is started again"
    parser.add_argument("--away", type=float, default=1.0, help=help_away)
    parser.add_argument("--keep", action="store_true", help="keep all logs and data roots")
    options = parser.parse_args()
    config = override(cpu_demo(), SETTINGS) if options.size == "toy" else cpu_demo()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    root = Path(tempfile.mkdtemp(prefix="chaos-"))
    os.environ["RLHF_DATA_ROOT"] = str(root / "begin")
    prepare()
    machine, chance, rows = Machine(root, options.away), random.Random(options.seed), []
    try:
        machine.begin()
        parameters = {"config": config.model_dump(mode="json"), "until_stage": options.until}
        reference = episode(machine, "reference", parameters)
        check_reference(reference, planned_stages(config, options.until))
        print(f"undisturbed: {reference['seconds']:.0f} s; logs below {root}", flush=True)
        for number, victim in enumerate(victims(options.kills, options.victims, chance)):
            moment = pick_moment(reference, chance)
            row = episode(machine, f"episode-{number}", parameters, victim, moment)
            compare(row, reference)
            rows.append(row)
            print(line(row), flush=True)
    finally:
        machine.end()
        if options.keep:
            print(f"kept: {root}")
        else:
            shutil.rmtree(root, ignore_errors=True)
    print(json.dumps(summary(rows)))


def victims(kills: int, kinds: list[str], chance: random.Random) -> list[str]:
    """Each kind as often as any other, in random order."""
    chosen = [kinds[number % len(kinds)] for number in range(kills)]
    chance.shuffle(chosen)
    return chosen


def pick_moment(reference: dict[str, Any], chance: random.Random) -> Moment:
    """Any moment of the undisturbed run is as likely as any other. It is given by the stage, since
    what else the machine does makes one run slower than the next."""
    seconds = chance.uniform(0.0, LATEST_SHARE) * reference["seconds"]
    begun = {stage: at for stage, at in reference["begun"].items() if at <= seconds}
    stage = max(begun, key=lambda stage: begun[stage])
    return stage, seconds - begun[stage], begun[stage]


def episode(
    machine: Machine,
    name: str,
    parameters: Any,
    victim: str = "",
    moment: Moment = ("", 0.0, 0.0),
) -> dict[str, Any]:
    """Run the chain once from nothing; kill the victim so many seconds after a stage began, or when
    a later one does."""
    machine.new_episode(name)
    began = time.monotonic()
    flow_run_id = trigger(machine, parameters)
    row: dict[str, Any] = {"victim": victim, "stage": "", "again": 0.0}
    killed, state = 0.0, "never began"
    known: set[int] = set()
    begun = {"": 0.0}
    while time.monotonic() - began < MAX_SECONDS:
        machine.manage()
        for folder in (machine.root / name / "runs").glob("*/"):
            if folder.name != "configs":
                begun.setdefault(folder.name, time.monotonic() - began)
        if victim and not killed and is_due(moment, begun, time.monotonic() - began):
            targets = find(machine, victim, flow_run_id)
            row["stage"] = stage_now(machine, flow_run_id)
            if targets:
                for target in targets:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        target.kill()
                killed = time.monotonic()
                row["after"] = killed - began
                known = pids(machine, victim, flow_run_id)
        elif killed and (new := pids(machine, victim, flow_run_id) - known):
            # The last new process of the flow; of the stage the first, others are other stages'.
            known |= new
            if victim != "stage" or not row["again"]:
                row["again"] = time.monotonic() - killed
        state = call(machine, f"/flow_runs/{flow_run_id}")["state_type"]
        if state in ("COMPLETED", "FAILED", "CANCELLED"):
            break
        time.sleep(0.3)
    row |= {"seconds": time.monotonic() - began, "state": state, "begun": begun}
    row |= how_it_ended(machine, flow_run_id)
    machine.end_episode()
    row["processes"] = len(settled(lambda: machine.left_over()))
    row |= {"digests": digests(machine.root / name), "metrics": metrics(machine.root / name)}
    row["mlflow"] = len(
        mlflow_rows(machine.root / name, "select 1 from runs where status = 'RUNNING'")
    )
    return row


def is_due(moment: Moment, begun: dict[str, float], now: float) -> bool:
    stage, seconds, undisturbed = moment
    if stage not in begun:
        return False
    pace = begun[stage] / undisturbed if stage else 1.0
    later = any(at > begun[stage] for at in begun.values())
    return later or now - begun[stage] >= seconds * pace


def find(machine: Machine, victim: str, flow_run_id: str) -> list[psutil.Process]:
    """The victim's processes; none while there is no such process."""
    flow, stage = machine.of_run(flow_run_id)
    parent = machine.main_process("worker")
    workers = [child for process in parent for child in process.children()]
    one_or_both = {"prefect's worker": workers, "its parent": parent, "worker": parent + workers}
    services = {name: machine.main_process(name) for name in ("prefect", "mlflow")}
    everything = [*flow, *stage, *parent, *workers, *services["prefect"], *services["mlflow"]]
    named = {"flow": flow, "stage": stage, "all": everything}
    return {**one_or_both, **services, **named}[victim]


def pids(machine: Machine, victim: str, flow_run_id: str) -> set[int]:
    """The processes whose kind the victim was of: the stage's, else the flow's."""
    flow, stage = machine.of_run(flow_run_id)
    return {process.pid for process in (stage if victim == "stage" else flow)}


def stage_now(machine: Machine, flow_run_id: str) -> str:
    """The stage at work, or what the run does without one."""
    flow, stage = machine.of_run(flow_run_id)
    for process in stage:
        with contextlib.suppress(psutil.Error, IndexError):
            return Path(process.cmdline()[-1]).parent.name
    return "between" if flow else "waiting"


def trigger(machine: Machine, parameters: Any) -> str:
    """Start the deployment's run as the form in the browser does."""
    deployment = call(machine, "/deployments/name/align/cpu-demo")["id"]
    path = f"/deployments/{deployment}/create_flow_run"
    return str(call(machine, path, {"parameters": parameters})["id"])


def call(machine: Machine, path: str, body: Any = None) -> Any:
    """The Prefect server's answer, which is waited for: it may be away, or its database locked."""
    deadline = time.monotonic() + MAX_SECONDS
    while time.monotonic() < deadline:
        machine.manage()
        with contextlib.suppress(httpx.TransportError):
            with access.prefect_client(machine.api) as client:
                answer = client.request("GET" if body is None else "POST", path, json=body)
            if not answer.is_server_error:
                return answer.raise_for_status().json()
        time.sleep(0.3)
    raise SystemExit(f"the Prefect server does not answer; logs are below {machine.root}")


def how_it_ended(machine: Machine, flow_run_id: str) -> dict[str, Any]:
    """What the run needed to get there, and what Prefect still holds for running."""

    def task_runs() -> list[Any]:
        of_run = {"flow_runs": {"id": {"any_": [flow_run_id]}}}
        return [run for run in call(machine, "/task_runs/filter", of_run)
                if run["state_type"] not in TERMINAL]  # fmt: skip

    open_tasks = settled(task_runs)
    not_ended = {"flow_runs": {"state": {"type": {"not_any_": list(TERMINAL)}}}}
    run = call(machine, f"/flow_runs/{flow_run_id}")
    return {
        "open": len(open_tasks) + len(call(machine, "/flow_runs/filter", not_ended)),
        "recoveries": int(run.get("labels", {}).get("rlhf.recoveries", 0)),
        "tries": run.get("run_count", 0),
    }


def settled(left: Any) -> list[Any]:
    """What ``left`` still returns when it has had time to become nothing."""
    deadline = time.monotonic() + SETTLING_SECONDS
    while (rest := left()) and time.monotonic() < deadline:
        time.sleep(0.5)
    return list(rest)


def digests(root: Path) -> Digests:
    """What each stage returned, with the digests of its results. The report, in which stand the
    seconds that each stage took, counts by its figures."""
    results = [json.loads(path.read_text()) for path in root.glob("runs/*/*/result.json")]
    return {
        result["stage"]: [
            result["key"],
            result["metrics" if result["stage"] == "evaluate" else "outputs"],
        ]
        for result in results
    }


def metrics(root: Path) -> set[tuple[Any, ...]]:
    """All step metrics of the stages' finished runs in MLflow, those of the machine left out."""
    query = """select distinct r.name, m.key, m.step from metrics m
               join runs r on r.run_uuid = m.run_uuid
               where r.status = 'FINISHED' and m.key not like 'system/%'"""
    return set(mlflow_rows(root, query))


def mlflow_rows(root: Path, query: str) -> list[tuple[Any, ...]]:
    """Rows of the episode's MLflow database, whose server has been stopped."""
    with contextlib.closing(sqlite3.connect(root / "mlflow" / "mlflow.db")) as connection:
        return connection.execute(query).fetchall()


def check_reference(reference: dict[str, Any], stages: tuple[str, ...]) -> None:
    if reference["state"] != "COMPLETED" or set(reference["digests"]) != set(stages):
        raise SystemExit("the undisturbed run did not complete; see --keep and the logs")


def compare(row: dict[str, Any], reference: dict[str, Any]) -> None:
    """Say in the row what differs from the undisturbed run."""
    row["lost"] = row["seconds"] - reference["seconds"]
    row["same"] = row["digests"] == reference["digests"]
    row["missing"] = len(reference["metrics"] - row["metrics"])
    row["left"] = row["open"] + row["mlflow"] + row["processes"]


def line(row: dict[str, Any]) -> str:
    if "after" not in row:
        return f"{row['victim']:<17} was never there to be killed: {row['state']}"
    how = f"{row['recoveries']} recoveries, {row['tries']} tries"
    return (
        f"{row['victim']:<17} {row.get('after', 0.0):4.0f} s {row['stage']:<13} lost "
        f"{row['lost']:5.0f} s, running again after {row['again']:4.0f} s, {how}, {row['state']}, "
        f"digests {'equal' if row['same'] else 'DIFFER'}, metrics missing {row['missing']}, left: "
        f"{row['open']} in Prefect, {row['mlflow']} in MLflow, {row['processes']} processes"
    )


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    def of(kind: str) -> Iterator[dict[str, Any]]:
        return (row for row in rows if row["victim"] == kind)

    return {
        "kills": sum("after" in row for row in rows),
        "completed": sum(row["state"] == "COMPLETED" for row in rows),
        "same_digest": sum(row["same"] for row in rows),
        "left_running": sum(row["left"] for row in rows),
        "metrics_missing": sum(row["missing"] for row in rows),
        "seconds_lost_median": round(statistics.median([row["lost"] for row in rows] or [0.0]), 1),
        "running_again_seconds": {
            kind: [round(row["again"], 1) for row in of(kind)] for kind in VICTIMS if any(of(kind))
        },
    }


if __name__ == "__main__":
    main()
