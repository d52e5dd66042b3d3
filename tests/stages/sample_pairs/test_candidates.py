"""The pairs that replies allow."""

from stages.core.feedback.pairs import pair_id
from stages.sample_pairs.candidates import Reply, candidate_pairs, num_equal


def test_pairs_of_different_models_come_alone():
    replies = [Reply("policy", "a"), Reply("policy", "b"), Reply("sft", "c"), Reply("sft", "d")]
    pairs = candidate_pairs("Why?", replies)
    assert [pair.reply_a + pair.reply_b for pair in pairs] == ["ac", "ad", "bc", "bd"]
    assert {(pair.model_a, pair.model_b) for pair in pairs} == {("policy", "sft")}


def test_one_models_samples_where_models_do_not_differ():
    replies = [Reply("policy", "a"), Reply("policy", "b"), Reply("sft", "A "), Reply("sft", "b")]
    (pair,) = candidate_pairs("Why?", replies)
    assert {pair.reply_a, pair.reply_b} == {"a", "b"}
    assert num_equal(replies) == 2


def test_neither_equal_nor_empty_nor_known_replies():
    replies = [Reply("policy", "a"), Reply("sft", " A"), Reply("sft", ""), Reply("sft", "c")]
    assert len(candidate_pairs("Why?", replies)) == 1
    assert candidate_pairs("Why?", replies, known={pair_id("Why?", "c", "a")}) == []
    assert candidate_pairs("Why?", replies[:2]) == []


def test_margins_and_disagreement_by_hand():
    a, b = Reply("policy", "a", score=1.5, guard_score=0.5), Reply("sft", "b", 1.0, 1.0)
    (pair,) = candidate_pairs("Why?", [a, b])
    assert pair.margin == 0.5
    assert pair.disagreement == 1.0  # 0.5 - (-0.5)
    (pair,) = candidate_pairs("Why?", [a, b._replace(guard_score=None)])
    assert (pair.margin, pair.disagreement) == (0.5, None)
    (pair,) = candidate_pairs("Why?", [a, Reply("sft", "b")])
    assert (pair.margin, pair.disagreement) == (None, None)
