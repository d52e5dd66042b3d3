"""Judgments from files of several formats."""

import datetime
import json

import pytest

from stages.core.errors import UserError
from stages.core.feedback.exports import export_rows
from stages.core.feedback.imports import read_judgments, without_known

NOW = datetime.datetime(2026, 11, 23, 12, tzinfo=datetime.UTC)
OWN = {"prompt": "q", "chosen": "y", "rejected": "x"}


@pytest.fixture
def read(tmp_path):
    """Reads records, written one a line, as judgments by "them"."""

    def read(*records, name="given.jsonl"):
        path = tmp_path / name
        lines = [item if isinstance(item, str) else json.dumps(item) for item in records]
        path.write_text("".join(f"{line}\n" for line in lines))
        return read_judgments(path, "them", NOW)

    return read


def test_columns_of_ours(read):
    said = OWN | {"annotator": "bob", "created_at": "2026-11-01T09:00+01:00", "margin": 3}
    first, second = read(said, {"prompt": "r", "chosen": "a", "rejected": "b"}).judgments
    assert (first.pair.prompt, first.pair.reply_a, first.pair.reply_b) == ("q", "x", "y")
    assert (first.verdict, first.strength, first.annotator) == ("b", 3, "bob")
    assert first.created_at == datetime.datetime(2026, 11, 1, 8, tzinfo=datetime.UTC)
    assert (first.pair.purpose, first.annotator_kind) == ("imported", "human")
    assert (second.verdict, second.strength, second.annotator) == ("a", 0, "them")
    assert second.created_at == NOW


def test_opposite_judgments_are_about_one_pair(read):
    one, other = read(OWN, OWN | {"chosen": "x", "rejected": "y"}).judgments
    assert one.pair == other.pair
    assert (one.verdict, other.verdict) == ("b", "a")


def test_a_margin_in_another_unit_is_no_strength(read):
    margins = [read(OWN | {"margin": margin}).judgments[0].strength for margin in (0.4, 1, 2.0, 7)]
    assert margins == [0, 1, 2, 0]


def test_a_time_without_zone_is_utc(read):
    (judgment,) = read(OWN | {"created_at": "2026-11-01 08:00"}).judgments
    assert judgment.created_at == datetime.datetime(2026, 11, 1, 8, tzinfo=datetime.UTC)


def test_known_formats(read):
    hh = {"chosen": "\n\nHuman: q\n\nAssistant: y", "rejected": "\n\nHuman: q\n\nAssistant: x"}
    arena = {"prompt": "q", "response_a": "x", "response_b": "y", "winner": "model_b"}
    for record, name in ((hh, "HH-RLHF dialogues"), (arena, "two replies compared")):
        found = read(record)
        assert found.format == name
        assert found.judgments == read(OWN).judgments


@pytest.mark.parametrize("name", ["jsonl", "argilla"])
def test_an_export_comes_back_with_who_judged(read, name):
    rows = [OWN | {"annotator": "annotator-1", "source": "feedback:human"}]
    (judgment,) = read(*export_rows(rows, name)[0]).judgments
    assert (judgment.annotator, judgment.verdict) == ("annotator-1", "b")


def test_a_models_judgment_stays_one(read):
    (judgment,) = read(OWN | {"annotator": "judge", "source": "feedback:ai"}).judgments
    assert (judgment.annotator, judgment.annotator_kind) == ("judge", "ai")


def test_bad_records_are_named_by_line_and_the_rest_is_read(read):
    same = OWN | {"rejected": "y"}
    found = read(OWN, "{broken", same, {"prompt": "q", "chosen": "y"}, OWN | {"prompt": "z"})
    assert [judgment.pair.prompt for judgment in found.judgments] == ["q", "z"]
    assert [item.line for item in found.refused] == [2, 3, 4]
    assert found.refused[1].reason == "chosen and rejected are equal"
    assert found.refused[2].reason == "column rejected missing"


def test_a_tie_is_no_preference_and_no_mistake(read):
    arena = {"prompt": "q", "response_a": "x", "response_b": "y", "winner": "model_a"}
    found = read(arena, arena | {"winner": "tie"})
    assert (len(found.judgments), found.empty, found.refused) == (1, 1, [])


def test_a_file_that_is_something_else_is_refused(read):
    with pytest.raises(UserError, match="given.parquet"):
        read(OWN, name="given.parquet")


def test_an_own_export_is_known_again(judge, read):
    known = [judge("anna", "b"), judge("bob", "a")]
    pseudonyms = {"anna": "annotator-1", "bob": "annotator-2"}

    def left(annotator, **facts):
        row = OWN | {"annotator": annotator} | facts
        return len(without_known(read(row).judgments, known, pseudonyms))

    assert left("annotator-1") == left("annotator-1, annotator-2") == 0
    assert left("annotator-3") == left("annotator-1, annotator-3") == left("carl") == 1
    assert left("annotator-1", prompt="another") == 1


def test_a_models_judgment_that_was_exported_keeps_its_purpose(judge, read):
    """Imported again it would no longer be of the random share."""
    row = OWN | {"annotator": "judge-1", "source": "feedback:ai"}
    exported = read(row).judgments
    given = judge("judge-1", "b", kind="ai", purpose="random")
    assert without_known(exported, [given], {}) == []
    assert without_known(exported, exported, {}) == exported
