"""Reviewers at work while the server is killed: the benchmark, small."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).resolve().parents[4] / "benchmarks" / "feedback_load.py"


@pytest.mark.slow
def test_no_judgment_is_lost_or_doubled_when_the_server_is_killed():
    few = ["--judgments", "30", "--reviewers", "3", "--kills", "1", "--databases", "sqlite"]
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), *few], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = json.loads(done.stdout.splitlines()[-1])["databases"]
    assert row["kills"] == 1
    assert row["repeated"] > 0  # the kill was seen on the page
    assert row["found"] == row["acknowledged"] == row["judgments"]
    assert [row[fault] for fault in ("lost", "doubled", "wrong", "foreign")] == [0, 0, 0, 0]
