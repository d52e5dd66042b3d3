"""How a process of ours ends: with the flow, when asked to, and with one line."""

import errno
import os
import signal
import subprocess
import sys
import time

import psutil

from stages.core.process import is_disk_full, refuse

WAITING = (
    "import time\n"
    "from stages.core.process import end_well\n"
    "end_well()\n"
    "try:\n"
    "    print('ready', flush=True)\n"
    "    time.sleep(60)\n"
    "finally:\n"
    "    print('tidied up', flush=True)\n"
)


def test_asked_to_end_it_tidies_up():
    child = subprocess.Popen([sys.executable, "-c", WAITING], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "ready\n"
    child.send_signal(signal.SIGTERM)
    assert child.stdout.read() == "tidied up\n"
    assert child.wait() == 128 + signal.SIGTERM
    child.stdout.close()


def test_it_ends_with_the_process_that_started_it():
    parent = (
        "import os, subprocess, sys, time\n"
        "environment = os.environ | {'RLHF_PARENT_PID': str(os.getpid())}\n"
        f"child = subprocess.Popen([sys.executable, '-c', {WAITING!r}], env=environment,"
        " stdout=subprocess.PIPE, text=True)\n"
        "child.stdout.readline()\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    child = int(process.stdout.readline())
    process.kill()
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + 10
    while _is_alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _is_alive(child)


def test_a_process_whose_parent_is_gone_already_does_not_begin():
    environment = os.environ | {"RLHF_PARENT_PID": "1"}
    code = "from stages.core.process import end_well; end_well(); print('began')"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "began" not in done.stdout
    assert "is gone" in done.stderr


def test_a_refusal_is_one_line(capsys):
    assert refuse("a.jsonl:\n  broken;  mend it") == 2
    assert capsys.readouterr().out == "::error a.jsonl: broken; mend it\n"


def test_a_full_disk_is_known_with_and_without_a_number():
    assert is_disk_full(OSError(errno.ENOSPC, "full"))
    assert is_disk_full(RuntimeError("I/O error: No space left on device"))
    assert not is_disk_full(OSError(errno.EACCES, "no"))


def _is_alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
