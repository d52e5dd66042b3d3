"""The registered policy, its origin and its aliases."""

from stages.core import tracking


def test_a_registered_policy_is_the_challenger_and_keeps_its_origin(client, parent, tmp_path):
    policy = tmp_path / "policy"
    policy.mkdir()
    (policy / "adapter_model.safetensors").write_bytes(b"weights")
    first = tracking.register_policy(parent, policy, {"win_rate": "0.6"})
    second = tracking.register_policy(parent, policy, {"win_rate": "0.7"})
    assert int(second) == int(first) + 1
    challenger = client.get_model_version_by_alias("rlhf-policy", "challenger")
    assert str(challenger.version) == second
    assert challenger.tags["win_rate"] == "0.7"
    logged = client.get_logged_model(challenger.source.removeprefix("models:/"))
    assert logged.source_run_id == parent
    files = {item.path for item in client.list_logged_model_artifacts(logged.model_id)}
    assert "adapter_model.safetensors" in files
