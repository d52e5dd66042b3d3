"""A run for a piece of work, which is gone on with."""

import pytest

from stages.core import tracking


def test_the_same_work_goes_on_in_its_run(client):
    with (
        pytest.raises(RuntimeError),
        tracking.single_run("imports", "a", "00ff", {"n": 1}) as first,
    ):
        raise RuntimeError
    assert client.get_run(first).info.status == "FAILED"
    with pytest.raises(KeyboardInterrupt), tracking.single_run("imports", "a", "00ff", {"n": 1}):
        raise KeyboardInterrupt
    assert client.get_run(first).info.status == "KILLED"
    with tracking.single_run("imports", "a", "00ff", {"n": 1}) as again:
        assert client.get_run(again).info.status == "RUNNING"
    with tracking.single_run("imports", "b", "00aa", {"n": 2}) as other:
        pass
    run = client.get_run(first)
    assert (again, run.info.status, run.info.run_name) == (first, "FINISHED", "a")
    assert run.data.params == {"n": "1"}
    assert other != first
