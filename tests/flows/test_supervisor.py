import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from flows import servers, supervisor
from flows.environment import CHECKOUT
from flows.supervisor import Child
from stages.core.errors import UserError

SLEEP = ["-c", "import time; time.sleep(60)"]


def _eventually(holds: Callable[[], bool], seconds: float = 15.0) -> bool:
    deadline = time.monotonic() + seconds
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.05)
    return holds()


def _is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def mark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(supervisor.MARK, supervisor.mark())


@pytest.fixture
def child(mark: None, tmp_path: Path) -> Iterator[Callable[..., Child]]:
    """Starts children, which are ended after the test."""
    children = []

    def make(arguments: list[str] = SLEEP, name: str = "The sleeper") -> Child:
        log = tmp_path / f"{len(children)}.log"
        start = lambda: servers.spawn(arguments, log, {})  # noqa: E731
        children.append(Child(name, start, log, start()))
        return children[-1]

    yield make
    for made in children:
        servers.stop(made.process)


def test_what_is_killed_is_started_again_and_said(child: Callable[..., Child]) -> None:
    sleeper, said = child(), []
    first = sleeper.process
    supervisor.look_after([sleeper], said.append)
    assert said == []
    first.kill()
    first.wait()
    assert _eventually(
        lambda: supervisor.look_after([sleeper], said.append) or sleeper.process is not first
    )
    assert sleeper.process.poll() is None
    (line,) = said
    assert "The sleeper was ended by SIGKILL; started again in 1 s; log: " in line
    assert line.endswith(str(sleeper.log))


def test_what_a_dead_child_left_in_its_group_is_ended_before_the_next_start(
    child: Callable[..., Child],
) -> None:
    program = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(child.pid, flush=True); time.sleep(60)"
    )
    parent = child(["-c", program])
    assert _eventually(lambda: parent.log.exists() and parent.log.read_text().endswith("\n"))
    grandchild = int(parent.log.read_text())
    parent.process.kill()
    parent.process.wait()
    supervisor.look_after([parent], lambda line: None)
    assert _eventually(lambda: not _is_alive(grandchild))


def test_what_ends_at_once_again_and_again_is_given_up(
    child: Callable[..., Child], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "MAX_DELAY_SECONDS", 0.01)
    broken, said = child(["-c", "print('no such pool'); raise SystemExit(3)"], "The worker"), []
    with pytest.raises(UserError, match="The worker ended with code 3, 5 times .*: no such pool;"):
        _eventually(lambda: supervisor.look_after([broken], said.append) is not None, seconds=60)
    assert len(said) == supervisor.MAX_QUICK_ENDS - 1


def test_a_child_that_ran_for_long_is_started_again_soon(child: Callable[..., Child]) -> None:
    old, said = child(), []
    old.started -= 3600
    old.quick_ends = 4
    servers.stop(old.process)
    supervisor.look_after([old], said.append)
    assert "was ended by SIGTERM; started again in 1 s" in said[0]


def test_the_end_lets_a_run_record_its_own_before_its_worker_goes(
    child: Callable[..., Child], tmp_path: Path
) -> None:
    run = (
        "import os, signal, sys, time\n"
        "def end(*_):\n"
        "    time.sleep(0.5)\n"
        f"    alive = os.path.exists('/proc/' + sys.argv[1])\n"
        f"    open({str(tmp_path / 'order')!r}, 'w').write(f'worker alive: {{alive}}')\n"
        "    sys.exit()\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "print('ready', flush=True); time.sleep(60)"
    )
    worker = child(
        [
            "-c",
            "import os, subprocess, sys, time\n"
            f"run = subprocess.Popen([sys.executable, '-c', {run!r}, str(os.getpid())], "
            "start_new_session=True)\n"
            "run.wait(); time.sleep(60)",
        ]
    )
    assert _eventually(lambda: worker.log.exists() and "ready" in worker.log.read_text())
    supervisor.end([worker], [child()])
    if sys.platform == "linux":
        assert (tmp_path / "order").read_text() == "worker alive: True"
    assert supervisor._marked(supervisor._is_ours) == []


def test_a_run_whose_worker_was_killed_ends_with_the_rest(child: Callable[..., Child]) -> None:
    program = (
        "import subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, *{SLEEP}], start_new_session=True)\n"
        "print(child.pid, flush=True); time.sleep(60)"
    )
    worker = child(["-c", program])
    assert _eventually(lambda: worker.log.exists() and worker.log.read_text().endswith("\n"))
    run = int(worker.log.read_text())
    servers.stop(worker.process)
    assert _is_alive(run)
    supervisor.end([worker], [])
    assert not _is_alive(run)


def test_what_a_killed_supervisor_left_behind_is_ended_by_the_next(
    data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = (
        "import os, subprocess, sys\n"
        "from flows import supervisor\n"
        "os.environ[supervisor.MARK] = supervisor.mark()\n"
        f"child = subprocess.Popen([sys.executable, *{SLEEP}], start_new_session=True,\n"
        "    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\n"
        "print(child.pid)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=CHECKOUT, capture_output=True, text=True
    )
    left = int(done.stdout)
    try:
        monkeypatch.setenv("RLHF_DATA_ROOT", str(data_root / "another"))
        supervisor.end_leftovers()
        assert _is_alive(left)
        monkeypatch.setenv("RLHF_DATA_ROOT", str(data_root))
        assert supervisor.count_leftovers() == 1
        supervisor.end_leftovers()
        assert not _is_alive(left)
    finally:
        if _is_alive(left):
            os.kill(left, signal.SIGKILL)
