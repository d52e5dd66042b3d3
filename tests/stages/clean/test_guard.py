import pytest

from stages.clean.guard import guard_place, set_aside_for_guard
from stages.core.errors import UserError
from stages.core.schemas import prompt_key, read_jsonl, write_jsonl


def pair(prompt):
    return {"prompt": prompt, "chosen": "a", "rejected": "b"}


@pytest.fixture
def folders(tmp_path):
    ours, guards = tmp_path / "preferences", tmp_path / "guard"
    ours.mkdir()
    write_jsonl(ours / "train.jsonl", [pair(f"What is {n}?") for n in range(40)])
    write_jsonl(ours / "held_out.jsonl", [pair("Held out?")])
    return ours, guards


def test_a_pair_goes_where_its_prompts_place_is(folders):
    ours, guards = folders
    moved, kept = set_aside_for_guard(0.4, ours, guards)
    assert moved + kept == 40
    for folder, is_guards, count in ((ours, False, kept), (guards, True, moved)):
        rows = list(read_jsonl(folder / "train.jsonl"))
        assert len(rows) == count
        for row in rows:
            assert (guard_place(prompt_key("preferences", row)) < 0.4) is is_guards
        assert list(read_jsonl(folder / "held_out.jsonl")) == [pair("Held out?")]


def test_pairs_that_were_set_aside_before_the_stage_was_killed_are_set_aside_again(folders):
    ours, guards = folders
    before = (ours / "train.jsonl").read_bytes()
    counts = set_aside_for_guard(0.4, ours, guards)
    files = [(folder / "train.jsonl").read_bytes() for folder in folders]
    (ours / "train.jsonl").write_bytes(before)  # cleaning writes it anew
    assert set_aside_for_guard(0.4, ours, guards) == counts
    assert [(folder / "train.jsonl").read_bytes() for folder in folders] == files


def test_one_prompt_cannot_be_shared(folders):
    ours, guards = folders
    write_jsonl(ours / "train.jsonl", [pair("one")] * 3)
    with pytest.raises(UserError, match=r"guard_share=0\.5 gives the guard model [03] training"):
        set_aside_for_guard(0.5, ours, guards)


def test_places_are_spread_evenly():
    places = [guard_place(f"prompt {n}") for n in range(4000)]
    assert 0 <= min(places) < max(places) < 1
    assert sum(place < 0.25 for place in places) / 4000 == pytest.approx(0.25, abs=0.03)
