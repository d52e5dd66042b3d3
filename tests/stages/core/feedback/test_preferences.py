"""Judgments become rows: conflicts, margins, what is held out."""

import random

import pytest

from stages.core.config import FeedbackSource
from stages.core.feedback.preferences import decide, feedback_data
from stages.core.schemas import DATA_KINDS, parse_row

NAMES = ("anna", "ben", "carl", "dora", "emil")
PSEUDONYMS = {name: f"annotator-{number}" for number, name in enumerate(NAMES)}


def data_of(judgments, published=(), **settings):
    return feedback_data(judgments, FeedbackSource(**settings), PSEUDONYMS, published)


def votes_of(judge, verdicts, strengths=()):
    strengths = (*strengths, *[0] * len(verdicts))
    return [
        judge(NAMES[n], {"t": "tie", "n": "both_bad"}.get(verdict, verdict), strength=strengths[n])
        for n, verdict in enumerate(verdicts)
    ]


@pytest.mark.parametrize(
    ("verdicts", "majority", "drop", "keep"),
    [
        ("a", ("x", 1), ("x", 1), ("x", 1)),
        ("aa", ("x", 1), ("x", 1), ("x", 1)),
        ("bbb", ("y", 1), ("y", 1), ("y", 1)),
        ("aab", ("x", 1), "dropped", ("x", 1 / 3)),
        ("ab", "dropped", "dropped", "dropped"),
        ("at", "dropped", "dropped", ("x", 1 / 2)),
        ("aat", ("x", 1), "dropped", ("x", 2 / 3)),
        ("attn", "tie", "dropped", ("x", 1 / 4)),
        ("abtt", "tie", "dropped", "dropped"),
        ("aabbn", "dropped", "dropped", "dropped"),
        ("t", "tie", "tie", "tie"),
        ("n", "both_bad", "both_bad", "both_bad"),
        ("tn", "tie", "tie", "tie"),
        ("tnn", "both_bad", "both_bad", "both_bad"),
    ],
)
def test_conflicts(judge, verdicts, majority, drop, keep):
    votes = votes_of(judge, verdicts)
    for conflicts, expected in (("majority", majority), ("drop", drop), ("keep", keep)):
        found = decide(votes, conflicts)
        if isinstance(expected, str):
            assert found.outcome == expected
        else:
            assert (found.chosen, found.margin) == pytest.approx(expected)
            assert found.rejected == {"x": "y", "y": "x"}[found.chosen]
        assert found.is_conflict == (len(set(verdicts.replace("n", "t"))) > 1)


def test_the_margin_is_the_mean_strength_of_those_who_prefer_the_chosen_reply(judge):
    votes = votes_of(judge, "aaba", (3, 2, 1, 0))  # 3, 2 and 1 where none is said
    assert decide(votes, "majority").margin == pytest.approx(2.0)
    assert decide(votes, "keep").margin == pytest.approx(2.0 * (3 - 1) / 4)


def test_mirrored_pairs_vote_together(judge):
    votes = [judge("anna", "a"), judge("ben", "b", replies=("y", "x")), judge("carl", "b")]
    found = decide(votes, "majority")
    assert (found.chosen, found.rejected) == ("x", "y")


def test_a_preference_names_pseudonyms_time_margin_and_source(judge):
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"},
                {"role": "user", "content": "q"}]  # fmt: skip
    votes = [judge("ben", "b", messages, strength=2), judge("anna", "b", messages, strength=3)]
    data = data_of(votes)
    (row,) = data.preferences
    assert row == {
        "prompt": messages,
        "chosen": "y",
        "rejected": "x",
        "annotator": "annotator-0, annotator-1",
        "created_at": "2026-11-01T02:00:00Z",
        "margin": 2.5,
        "source": "feedback:human",
    }
    assert parse_row("preferences", row) == row
    assert data.prompts == [{"prompt": messages}]
    assert set(data.uses.values()) == {"train"}


def test_people_decide_where_a_language_model_judged_too(judge):
    judgments = [
        judge("anna", "a", "p"),
        judge("gpt", "b", "p", kind="ai"),
        judge("gpt", "b", "q", kind="ai", strength=3),
        judge("anna", "tie", "r"),
        judge("gpt", "a", "r", kind="ai"),
    ]
    data = data_of(judgments, annotators="all")
    found = {row["prompt"]: (row["chosen"], row["annotator"], row["source"], row["margin"])
             for row in data.preferences}  # fmt: skip
    assert found == {
        "p": ("x", "annotator-0", "feedback:human", 1.0),
        "q": ("y", "gpt", "feedback:ai", 3.0),
    }
    assert [data.uses[one.judgment_id] for one in judgments] == [
        "train", "overruled", "train", "tie", "overruled",
    ]  # fmt: skip
    assert not data.num_conflicts


def test_a_changed_answer_replaces_the_one_before(judge):
    first, second = judge("anna", "a", strength=3), judge("anna", "b")
    data = data_of([second, first])
    (row,) = data.preferences
    assert (row["chosen"], row["margin"]) == ("y", 1.0)
    assert list(data.uses) == [second.judgment_id]


def test_random_pairs_are_held_out_and_their_prompts_are_in_no_training_data(judge):
    chosen = judge("anna", "a", "Why?", better_answer="Never.")
    same_prompt = judge("anna", "a", " why? ", ("u", "v"), purpose="random", better_answer="Held.")
    tie = judge("anna", "tie", "How?", purpose="random")
    asked = judge("ben", "a", "Who?", purpose="random").pair
    trained = judge("anna", "a", "Who?", ("m", "n"))
    imported = judge("anna", "b", "When?", purpose="imported", better_answer="Now.")
    data = data_of([chosen, same_prompt, tie, trained, imported], [asked])
    assert [row["prompt"] for row in data.preferences] == ["When?"]
    assert [row["prompt"] for row in data.preferences_held_out] == [" why? "]
    assert data.sft == [{"prompt": "When?", "completion": "Now."}]
    assert data.sft_held_out == [{"prompt": " why? ", "completion": "Held."}]
    assert data.prompts == [{"prompt": "When?"}]
    assert {row["prompt"].strip().lower() for row in data.prompts_held_out} == {
        "why?", "how?", "who?",
    }  # fmt: skip
    assert data.reserved == [{"prompt": text} for text in ("how?", "who?", "why?")]
    assert dict(data.num_pairs) == {"reserved": 2, "held_out": 1, "tie": 1, "train": 1}


def test_what_is_reserved_does_not_depend_on_whose_judgments_count(judge):
    by_ai = judge("gpt", "a", "Why?", purpose="random", kind="ai")
    by_person = judge("anna", "a", "Why?", ("u", "v"))
    data = data_of([by_ai, by_person])
    assert (data.preferences, data.preferences_held_out) == ([], [])
    assert data.reserved == [{"prompt": "why?"}]


def test_gold_pairs_and_left_out_annotators_are_never_data(judge):
    careless = [
        judge("ben", "a", f"gold {n}", purpose="gold", expected="b", better_answer="no")
        for n in range(5)
    ]
    judgments = [*careless, judge("ben", "a", "p", better_answer="no"), judge("anna", "b", "p")]
    data = data_of(judgments)
    (row,) = data.preferences
    assert (row["chosen"], row["annotator"]) == ("y", "annotator-0")
    assert data.sft == []
    assert data.prompts == [{"prompt": "p"}]
    assert [data.uses[one.judgment_id] for one in judgments] == ["gold"] * 5 + ["left_out", "train"]
    assert {one.annotator: bool(one.left_out) for one in data.annotators} == {
        "anna": False,
        "ben": True,
    }


def test_an_imported_judgment_of_a_gold_pair_is_no_data_either(judge):
    imported = judge("elsewhere", "a", "gold", purpose="imported", better_answer="no")
    asked = judge("anna", "b", "gold", purpose="gold", expected="b").pair
    data = feedback_data([imported], FeedbackSource(), {"elsewhere": "annotator-1"}, [asked])
    assert data.uses == {imported.judgment_id: "gold"}
    assert (data.preferences, data.sft) == ([], [])


def test_ties_and_both_bad_are_counted_and_their_better_answers_learned(judge):
    judgments = [
        judge("anna", "tie", "p"),
        judge("anna", "both_bad", "q", better_answer="This."),
        judge("ben", "both_bad", "q", better_answer="This."),
    ]
    data = data_of(judgments)
    assert data.preferences == []
    assert data.sft == [{"prompt": "q", "completion": "This."}]
    assert dict(data.num_pairs) == {"tie": 1, "both_bad": 1}


@pytest.mark.parametrize("replies", [("x", "x "), ("", "y"), ("x", "\ud800")])
def test_pairs_that_can_be_no_preference_are_counted(judge, replies):
    data = data_of([judge("anna", "a", "p", replies)])
    assert data.preferences == []
    assert dict(data.num_pairs) == {"unusable": 1}


def test_equal_judgments_give_equal_rows_whatever_their_order(judge):
    judgments = [
        judge(name, random.Random(n).choice("ab"), f"prompt {n % 20}", better_answer=f"b{n % 3}",
              purpose="random" if n % 20 < 4 else "chosen")
        for n, name in enumerate(NAMES * 12)
    ]  # fmt: skip
    shuffled = random.Random(0).sample(judgments, len(judgments))
    assert data_of(judgments) == data_of(shuffled)
    rows = vars(data_of(judgments))
    for kind in DATA_KINDS:
        for row in [*rows.get(kind, []), *rows.get(f"{kind}_held_out", [])]:
            assert parse_row(kind, row) == row


def test_no_judgments_give_nothing():
    data = data_of([])
    assert (data.preferences, data.uses, data.annotators) == ([], {}, [])
