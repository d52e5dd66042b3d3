"""Runs and versions at a glance."""

from stages.core import tracking


def test_the_newest_pipeline_runs_come_first_and_stages_are_no_runs(client, parent, stage):
    with stage():
        pass
    tracking.end_pipeline_run(parent, "FINISHED", {"kl_policy": 2.5})
    (newest,) = tracking.last_runs(1)
    assert (newest.run_id, newest.name, newest.state) == (parent, "demo seed 3", "finished")
    assert newest.experiment.startswith("test_the_newest")
    assert newest.metrics == {"kl_policy": 2.5}
    assert newest.ended is not None
    assert newest.ended >= newest.started


def test_a_run_whose_process_is_gone_was_killed(client, parent):
    assert tracking.last_runs(1)[0].state == "running"
    client.set_tag(parent, "process", "999999999@1.00")
    assert tracking.last_runs(1)[0].state == "killed"
    client.update_run(parent, status="SCHEDULED")
    assert tracking.last_runs(1)[0].state == "suspended"


def test_versions_come_with_their_aliases(client, parent, tmp_path):
    for model in client.search_registered_models():
        client.delete_registered_model(model.name)
    assert tracking.policy_versions() == []
    (tmp_path / "policy").mkdir()
    for digest in ("a", "b"):
        tracking.register_policy(parent, tmp_path / "policy", {"policy_digest": digest})
    tracking.promote("1")
    assert [(line.number, line.aliases, line.tags["policy_digest"])
            for line in tracking.policy_versions()] == [
        ("2", ("challenger",), "b"),
        ("1", ("champion",), "a"),
    ]  # fmt: skip
