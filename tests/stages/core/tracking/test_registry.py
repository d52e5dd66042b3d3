"""The registered policy, its origin, and who is challenger, champion and champion before."""

import pytest

from stages.core import tracking
from stages.core.errors import UserError


@pytest.fixture
def register(client, parent, tmp_path):
    """Registers a policy, alone in the registry at first; returns the version's number."""
    for model in client.search_registered_models():
        client.delete_registered_model(model.name)
    policy = tmp_path / "policy"
    policy.mkdir()
    (policy / "adapter_model.safetensors").write_bytes(b"weights")

    def register(**tags: str) -> str:
        return tracking.register_policy(parent, policy, {"parent_run": parent, **tags})

    return register


@pytest.fixture
def aliases(client):
    """The aliases that there are, with their versions."""

    def aliases() -> dict[str, str]:
        return {
            name: str(version)
            for name, version in client.get_registered_model("rlhf-policy").aliases.items()
        }

    return aliases


def test_a_registered_policy_is_the_challenger_and_keeps_its_origin(client, parent, register):
    first, second = register(win_rate="0.6"), register(win_rate="0.7")
    assert int(second) == int(first) + 1
    challenger = client.get_model_version_by_alias("rlhf-policy", "challenger")
    assert str(challenger.version) == second
    assert challenger.tags["win_rate"] == "0.7"
    logged = client.get_logged_model(challenger.source.removeprefix("models:/"))
    assert logged.source_run_id == parent
    files = {item.path for item in client.list_logged_model_artifacts(logged.model_id)}
    assert "adapter_model.safetensors" in files


def test_a_policy_registered_again_gets_new_tags_and_does_not_displace_a_newer_one(
    client, register, aliases
):
    first = register(policy_digest="a", win_rate="0.6")
    second = register(policy_digest="b")
    assert register(policy_digest="a", win_rate="0.7") == first
    assert client.get_model_version("rlhf-policy", first).tags["win_rate"] == "0.7"
    assert aliases() == {"challenger": second}


def test_the_champion_gives_way_and_is_kept(register, aliases):
    assert tracking.champion() is None
    first = register(policy_digest="a", compared_with="none")
    assert tracking.promote("challenger", "the first") == first
    assert tracking.champion() == tracking.Champion(first, "a")
    second = register(policy_digest="b", compared_with=first)
    assert tracking.promote(second) == second
    assert aliases() == {"challenger": second, "champion": second, "previous": first}


def test_of_two_policies_that_beat_the_same_champion_one_wins(register, aliases):
    first = register(compared_with="none")
    second = register(compared_with="none")
    tracking.promote(first)
    message = f"compared with no champion, but version {first} is champion now: evaluate it again"
    with pytest.raises(UserError, match=message):
        tracking.promote(second)
    assert aliases()["champion"] == first


def test_to_promote_the_champion_again_changes_nothing(register, aliases):
    first = register(compared_with="none")
    tracking.promote(first)
    second = register(compared_with=first)
    tracking.promote(second)
    tracking.promote(second, "again")
    assert aliases()["previous"] == first


def test_rollback_goes_back_and_forth(register, aliases):
    with pytest.raises(UserError, match="no previous champion"):
        tracking.rollback()
    first, second = register(), register()
    tracking.promote(first)
    tracking.promote(second)
    assert tracking.rollback() == (second, first)
    assert aliases()["champion"] == first
    assert aliases()["previous"] == second
    assert tracking.rollback() == (first, second)


def test_why_a_version_stayed_challenger_is_kept(client, register, aliases):
    version = register()
    tracking.leave_as_challenger(version, "too long-winded")
    tags = client.get_model_version("rlhf-policy", version).tags
    assert tags["promotion_comment"] == "too long-winded"
    assert "champion" not in aliases()
