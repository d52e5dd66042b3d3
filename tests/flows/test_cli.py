import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from flows import cli, worker
from flows.environment import CHECKOUT
from stages.core import tracking
from stages.core.config import PipelineConfig


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "flows", *arguments]


def _environment(home: Path) -> dict[str, str]:
    """As a user has it: nothing of Prefect's is set."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return {**kept, "HOME": str(home)}


@pytest.fixture
def fails(
    data_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Runs a command that the user must mend: code 2, one line on stderr, which is returned."""
    monkeypatch.setattr(cli, "prepare", lambda: None)
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)
    monkeypatch.setattr(cli.servers, "start_prefect", lambda: pytest.fail("a server was started"))

    def run(*arguments: str) -> str:
        assert cli.main(["run", *arguments]) == cli.USER_ERROR
        text = capsys.readouterr().err
        assert text.count("\n") == 1
        assert "Traceback" not in text
        return text

    return run


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--profile", "cpu_demo"], "did you mean 'cpu-demo'"),
        (["--profile", "cpu-demo", "--set", "ppo.kl_ceof=1"], "did you mean 'ppo.kl_coef'"),
        (["--profile", "cpu-demo", "--set", "ppo.kl_coef"], "must be KEY=VALUE"),
        (["--profile", "cpu-demo", "--set", "ppo.kl_coef=-1"], "greater than or equal to 0"),
        (["--profile", "cpu-demo", "--set", "ppo.seed=1"], "set seed"),
        (["--profile", "cpu-demo", "--set", "collect.sft.paths=gone.jsonl"], "gone.jsonl"),
        (["--profile", "cpu-demo", "--from", "base_model"], "no stage base_model"),
        (["--profile", "cpu-demo", "--from", "ppo", "--until", "sft"], "no stage ppo"),
        (["--profile", "smollm2"], "base_model.source is empty"),
        (["--config", "gone.json"], "gone.json: No such file"),
        (["--until", "clean"], "collect has no data"),
        (["--earlier-run", "demo"], "--earlier-run: say with --from which stage"),
    ],
)
def test_what_the_user_must_mend_is_one_line_before_a_server_starts(
    fails: Callable[..., str], arguments: list[str], message: str
) -> None:
    assert message in fails(*arguments)


@pytest.mark.parametrize(
    ("variable", "path", "message"),
    [
        ("PREFECT_API_URL", "/api", "the Prefect server at http://127.0.0.1:"),
        ("MLFLOW_TRACKING_URI", "", "the MLflow server at http://127.0.0.1:"),
    ],
)
def test_a_server_elsewhere_that_does_not_answer_is_named(
    fails: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    path: str,
    message: str,
) -> None:
    monkeypatch.setenv(variable, f"http://me:word@127.0.0.1:{cli.servers.free_port()}{path}")
    said = fails("--profile", "cpu-demo")
    assert message in said
    assert f"correct or unset {variable}" in said
    assert "word" not in said


@pytest.mark.parametrize("port", ["0", "65536", "http"])
def test_a_port_is_a_number_that_there_is(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["up", "--prefect-port", port])
    assert ended.value.code == cli.USER_ERROR
    assert f"'{port}' is no port: 1 to 65535" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--keep-runs", "--older-than"])
@pytest.mark.parametrize("number", ["-1", "1.5", "few"])
def test_a_number_of_things_to_keep_is_a_whole_one(
    option: str, number: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["gc", option, number])
    assert ended.value.code == cli.USER_ERROR
    assert f"argument {option}: '{number}' is no whole number from 0" in capsys.readouterr().err


def test_a_worker_by_hand_tracks_where_the_standing_servers_say(
    data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = []
    monkeypatch.setattr(worker, "work", lambda pool: served.append(os.environ[tracking]))
    monkeypatch.setattr(cli.servers, "is_healthy", lambda url: True)
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)
    monkeypatch.setattr(cli, "prepare", lambda: None)
    monkeypatch.setenv("PREFECT_HOME", str(data_root))
    tracking = "MLFLOW_TRACKING_URI"
    monkeypatch.delenv(tracking)
    with cli.servers.recorded("http://p", "http://m", "http://m"):
        assert cli.main(["worker", "cpu"]) == 0
        monkeypatch.setenv(tracking, "http://of-the-user")
        assert cli.main(["worker", "cpu"]) == 0
    assert served == ["http://m", "http://of-the-user"]


def test_rollback_goes_back_to_the_champion_before(
    data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tracking.start_pipeline_run(PipelineConfig(profile="rollback"), "rollback")
    (tmp_path / "policy").mkdir()
    versions = [
        tracking.register_policy(run, tmp_path / "policy", {"parent_run": run}) for _ in range(2)
    ]
    for version in versions:
        tracking.promote(version)
    assert cli.main(["rollback"]) == 0
    assert f"Champion is version {versions[0]} again" in capsys.readouterr().out
    champion = tracking.champion()
    assert champion is not None
    assert champion.version == versions[0]


@pytest.mark.slow
def test_doctor_names_what_is_to_mend(data_root: Path) -> None:
    (data_root / "prefect").mkdir()
    (data_root / "prefect" / "prefect.db").write_text("this is no database, however long it is")
    environment = {**_environment(data_root), "MLFLOW_TRACKING_USERNAME": "me"}
    ended = subprocess.run(
        _command("doctor"), cwd=CHECKOUT, env=environment, capture_output=True, text=True
    )
    assert (ended.returncode, ended.stderr) == (cli.USER_ERROR, "")
    lines = ended.stdout.splitlines()
    bad = [line.split("  ")[0] for line in lines if line.startswith("✗")]
    assert bad == ["✗ Passwords", "✗ Prefect data"]
    assert sum("→" in line for line in lines) == 2
    assert lines[-1] == "2 to mend."


def test_a_broken_configuration_file_is_named(fails: Callable[..., str], tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text('{"ppo": ', encoding="utf-8")
    assert "run.json: no valid JSON" in fails("--config", str(path))


def test_an_unknown_stage_is_a_bad_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["run", "--from", "pretrane"])
    assert ended.value.code == cli.USER_ERROR
    assert "'pretrain'" in capsys.readouterr().err


def test_profile_file_and_settings_are_laid_over_each_other(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"seed": 4, "ppo": {"kl_coef": 0.3, "lam": 0.9}}), encoding="utf-8")
    options = cli.parser().parse_args(
        ["run", "--profile", "cpu-demo", "--config", str(path), "--set", "ppo.lam=0.8"]
    )
    config = cli.resolve(options)
    assert (config.profile, config.seed, config.sft.seed) == ("cpu-demo", 4, 4)
    assert (config.ppo.kl_coef, config.ppo.lam) == (0.3, 0.8)


@pytest.mark.slow
def test_run_makes_then_reuses_and_writes_nothing_at_home(
    data_root: Path,
    config_file: Path,
    tmp_path: Path,
    prefect_rows: Callable[[str], list[tuple[str, ...]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    # Not the store that the tests share: what another test made would be fetched.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    command = _command("run", "--config", str(config_file), "--until", "clean")
    for state in ("done", "reused"):
        ended = subprocess.run(
            command, cwd=CHECKOUT, env=_environment(home), capture_output=True, text=True
        )
        assert (ended.returncode, ended.stderr) == (0, "")
        assert f"clean: {state} in" in ended.stdout
    # The server was stopped only after it had stored every task run's end.
    rows = prefect_rows("select name, state_name from task_run order by name, state_name")
    assert rows == [
        ("clean", "Completed"),
        ("clean", "Reused"),
        ("collect", "Completed"),
        ("collect", "Reused"),
    ]
    assert list(home.iterdir()) == []
    (first, *_) = sorted((data_root / "runs" / "configs").glob("tiny-*.json"))
    assert json.loads(first.read_text())["profile"] == "tiny"


def _collecting(command: list[str], data_root: Path) -> subprocess.Popen[str]:
    """The process of a run whose stage collect has just begun."""
    process = subprocess.Popen(
        command,
        cwd=CHECKOUT,
        env=_environment(data_root),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("collect: started"):
            break
    return process


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_all_children(
    number: signal.Signals,
    config_file: Path,
    tmp_path: Path,
    prefect_rows: Callable[[str], list[tuple[str, ...]]],
) -> None:
    process = _collecting(
        _command("run", "--config", str(config_file), "--until", "clean"), tmp_path
    )
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    process.send_signal(number)
    out, error = process.communicate(timeout=180)
    assert process.returncode == cli.INTERRUPTED
    # The servers that end beside it may have had a word, too.
    assert error.endswith("rlhf: interrupted; finished stages are kept\n"), error
    assert "collect: interrupted" in out
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []
    assert prefect_rows("select state_name from task_run") == [("Crashed",)]
    assert prefect_rows("select state_name from flow_run") == [("Crashed",)]


@pytest.mark.slow
def test_under_nohup_a_run_outlives_its_terminal(config_file: Path, tmp_path: Path) -> None:
    process = _collecting(
        ["nohup", *_command("run", "--config", str(config_file), "--until", "collect")], tmp_path
    )
    process.send_signal(signal.SIGHUP)
    out, error = process.communicate(timeout=180)
    assert process.returncode == 0, error
    assert "collect: done" in out
