"""The command ``rlhf``.

Exit codes: 0 done, 1 a crash, 2 something only the user can mend, 130 interrupted; of ``rlhf
check`` 0 fine, 1 findings, 2 nothing usable.
"""

import argparse
import contextlib
import datetime
import importlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console

from flows import (
    access,
    benchmark_command,
    check_command,
    feedback_command,
    foreground,
    forget_command,
    plan,
    servers,
    status_command,
)
from flows.benchmark_command import whole_number
from flows.environment import prefect_folder, prepare
from flows.profiles import PROFILES, merged, override, profile, setting
from stages.core.artifacts import data_root, write_atomically
from stages.core.config import PipelineConfig
from stages.core.errors import StageCrashedError, UserError, without_passwords

CRASHED, USER_ERROR, INTERRUPTED = 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; errors are one line on stderr."""
    options = parser().parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup asks
            signal.signal(number, _interrupt)
    console = Console(highlight=False)
    try:
        if options.command == "check":
            return check_command.check(options, console)
        if options.command == "doctor":
            from flows.doctor import doctor

            with contextlib.suppress(UserError):  # doctor finds it, and more
                prepare()
            return doctor(console)
        prepare()
        if options.command == "up":
            from flows.up import up

            up(console, options.host, options.prefect_port, options.mlflow_port)
        elif options.command == "gc":
            _clean_up(options, console)
        elif options.command == "feedback":
            foreground.standing()
            feedback_command.feedback(options, console)
        elif options.command == "forget":
            foreground.standing()
            forget_command.forget(options, console)
        elif options.command == "status":
            foreground.standing()
            status_command.status(options, console)
        elif options.command == "rollback":
            _roll_back(console)
        elif options.command == "evaluate":
            foreground.standing()
            benchmark_command.evaluate(options, console)
        elif options.command in ("deploy", "worker"):
            _serve(options, console)
        else:
            _run(options, console)
    except UserError as error:
        return _fail(str(error), USER_ERROR)
    except StageCrashedError as error:
        return _fail(str(error), CRASHED)
    except KeyboardInterrupt:
        return _fail("interrupted; finished stages are kept", INTERRUPTED)
    except Exception as error:
        log = prefect_folder() / "cli.log"
        with contextlib.suppress(OSError), log.open("a", encoding="utf-8") as file:
            file.write(without_passwords(traceback.format_exc()))
        return _fail(f"{type(error).__name__}: {error}; see {log}", CRASHED)
    return 0


def resolve(options: argparse.Namespace) -> PipelineConfig:
    """The configuration that the options ask for: profile, then file, then single settings.

    Raises:
        UserError: an unknown profile or key, a value that is not allowed, an unreadable file.
    """
    config = profile(options.profile) if options.profile else PipelineConfig()
    if options.config:
        config = merged(config, _read_json(Path(options.config)))
    return override(config, dict(map(setting, options.set)))


# ------------------------------------------------------------------------------------ helpers


def _run(options: argparse.Namespace, console: Console) -> None:
    if options.earlier_run and not options.from_stage:
        raise UserError("--earlier-run: say with --from which stage is the first to be made")
    config = resolve(options)
    stages = plan.planned_stages(config, options.until_stage)
    start = plan.position(stages, options.from_stage) if options.from_stage else 0
    plan.check(config, stages[start:] if options.earlier_run else stages)
    replay = _write_resolved(config)
    foreground.run_flow(
        console,
        "flows.pipeline",
        "align",
        config,
        from_stage=options.from_stage,
        until_stage=options.until_stage,
        fresh=options.fresh,
        earlier_run=options.earlier_run,
        places={"replay": f"rlhf run --config {replay}"},
    )


def _clean_up(options: argparse.Namespace, console: Console) -> None:
    foreground.standing()
    gc = importlib.import_module("flows.gc")
    gc.clean_up(console, options.keep_runs, options.older_than, options.apply)


def _roll_back(console: Console) -> None:
    foreground.standing()
    now, before = importlib.import_module("stages.core.tracking").rollback()
    console.print(f"Champion is version {before} again; version {now} is the previous one now.")


def _serve(options: argparse.Namespace, console: Console) -> None:
    """Commands that need a standing Prefect server: the user's, or that of ``rlhf up``."""
    standing = foreground.standing()
    if not os.environ.get("PREFECT_API_URL"):
        if standing is None:
            raise UserError(
                f"rlhf {options.command}: no Prefect server; start one with rlhf up, or set "
                "PREFECT_API_URL"
            )
        os.environ["PREFECT_API_URL"] = f"{standing.prefect_url}/api"
    if options.command == "worker":
        importlib.import_module("flows.worker").work(options.pool)
        return
    access.check_prefect(os.environ["PREFECT_API_URL"])
    deployments = importlib.import_module("flows.deployments")
    more = []
    if options.cron:
        schedule = deployments.cron(options.cron, options.timezone)
        more.append(deployments.retraining(options.name, resolve(options), schedule))
    for name in deployments.deploy(more):
        console.print(name)


def parser() -> argparse.ArgumentParser:
    """The options of the command."""
    command = argparse.ArgumentParser(
        prog="rlhf", description="Raw text, demonstrations and preferences → an aligned model."
    )
    commands = command.add_subparsers(dest="command", required=True, metavar="command")
    run = commands.add_parser("run", help="run the pipeline; finished stages are reused")
    _add_settings(run)
    stages = list(plan.OUTPUTS)
    help_from = "make this stage and all later ones again"
    run.add_argument("--from", dest="from_stage", choices=stages, default="", help=help_from)
    help_until = "stop after this stage"
    run.add_argument("--until", dest="until_stage", choices=stages, default="", help=help_until)
    run.add_argument("--fresh", action="store_true", help="make all stages again")
    help_earlier = "take the stages before --from from this MLflow run: name, id, or model@alias"
    run.add_argument("--earlier-run", default="", metavar="RUN", help=help_earlier)
    check_command.add_parser(commands)
    benchmark_command.add_parser(commands)
    help_up = "start Prefect, MLflow, the deployments and the workers, and keep them running"
    up = commands.add_parser("up", help=help_up)
    help_host = "address to listen on (%(default)s); another one needs passwords: flows/README.md"
    up.add_argument("--host", default=servers.HOST, help=help_host)
    for name, default in (("prefect", servers.PREFECT_PORT), ("mlflow", servers.MLFLOW_PORT)):
        help_port = f"{default}, or a free one where that is in use"
        up.add_argument(f"--{name}-port", type=_port, default=0, metavar="PORT", help=help_port)
    feedback_command.add_parser(commands)
    forget_command.add_parser(commands)
    status_command.add_parser(commands)
    commands.add_parser("rollback", help="make the previous champion champion again")
    commands.add_parser("doctor", help="look for what would stop a run, and say how to mend it")
    help_deploy = "bring work pools and deployments to the Prefect server"
    deploy = commands.add_parser("deploy", help=help_deploy)
    deploy.add_argument(
        "--name", default="scheduled", help="name of one more, scheduled deployment"
    )
    deploy.add_argument("--cron", default="", help="its schedule, such as '0 4 * * 0'")
    deploy.add_argument("--timezone", default="UTC", help="of the schedule, such as Europe/Berlin")
    _add_settings(deploy)
    gc = commands.add_parser("gc", help="list results that nothing needs any more, or remove them")
    gc.add_argument("--apply", action="store_true", help="remove them")
    help_keep = "the newest pipeline runs of each experiment keep their results (default: 5)"
    gc.add_argument("--keep-runs", type=whole_number, default=5, metavar="N", help=help_keep)
    help_older = "leave what has changed in so many days (default: 7)"
    gc.add_argument(
        "--older-than",
        type=whole_number,
        default=7,
        metavar="DAYS",
        help=help_older,
    )
    worker = commands.add_parser("worker", help="run what is due on a work pool, until Ctrl-C")
    worker.add_argument("pool", help="cpu or gpu")
    return command


def _add_settings(command: argparse.ArgumentParser) -> None:
    command.add_argument("--profile", help=f"one of: {', '.join(PROFILES)}")
    command.add_argument("--config", metavar="FILE", help="settings as JSON, over the profile's")
    command.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change one setting, such as ppo.kl_coef=0.1; may be given often",
    )


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 2**16:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: 1 to 65535")
    return int(text)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"--config {path}: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"--config {path}: no valid JSON: {error}") from None


def _write_resolved(config: PipelineConfig) -> Path:
    folder = data_root() / "runs" / "configs"
    folder.mkdir(parents=True, exist_ok=True)
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    path = folder / f"{config.profile}-{now}.json"
    write_atomically(path, config.model_dump_json(indent=2))
    return path


def _fail(message: str, code: int) -> int:
    print(f"rlhf: {without_passwords(' '.join(message.split()))}", file=sys.stderr)
    return code


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
