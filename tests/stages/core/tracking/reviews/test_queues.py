"""Opening queues: once, in turn, and never twice the same."""

from collections import Counter

import pytest

from stages.core import tracking
from stages.core.config import ReviewQueueConfig
from stages.core.errors import UserError
from stages.core.tracking.reviews.queues import deal, items


def test_a_queue_opened_again_stays_as_it_is(config, make_pairs, run_id):
    first = tracking.open_queue(config, make_pairs(5), run_id)
    again = tracking.open_queue(config, make_pairs(5), run_id)
    assert (first.num_pairs, first.num_new, first.num_traces) == (5, 5, 5)
    assert (again.num_pairs, again.num_new, again.num_traces) == (5, 0, 5)
    assert first.names == again.names == ("round 1",)
    assert first.page == again.page
    assert len(items(first.experiment_id)) == 5


def test_pairs_are_added_to_a_queue_of_the_same_name(config, make_pairs, run_id):
    tracking.open_queue(config, make_pairs(3), run_id)
    more = tracking.open_queue(config, make_pairs(4, start=1), run_id)
    assert (more.num_pairs, more.num_new) == (4, 2)
    assert len(items(more.experiment_id)) == 5
    assert tracking.published_pairs(config.experiment) == make_pairs(5)


def test_a_queue_without_a_name_has_one_that_follows_from_its_pairs(config, make_pairs, run_id):
    nameless = config.model_copy(update={"name": ""})
    first = tracking.open_queue(nameless, make_pairs(2), run_id)
    again = tracking.open_queue(nameless, make_pairs(2), run_id)
    other = tracking.open_queue(nameless, make_pairs(2, start=7), run_id)
    assert first.names == again.names != other.names
    assert len(items(first.experiment_id)) == 4


def test_a_queue_needs_pairs(config, run_id):
    with pytest.raises(UserError, match="no pairs to ask about"):
        tracking.open_queue(config, [], run_id)


def test_reviewers_have_queues_of_their_own(config, make_pairs, run_id):
    named = config.model_copy(update={"reviewers": ("anna", "ben"), "overlap_share": 0.5})
    opened = tracking.open_queue(named, make_pairs(4), run_id)
    assert opened.names == ("round 1 · anna", "round 1 · ben")
    assert opened.name == "round 1"
    assert opened.num_traces == 6
    assert Counter(item.queue for item in items(opened.experiment_id)) == {
        "round 1 · anna": 3,
        "round 1 · ben": 3,
    }


def test_a_reviewer_in_two_spellings_is_one_person():
    named = ReviewQueueConfig(reviewers=(" anna", "Ben", "ANNA ", " ", "ben"))
    assert named.reviewers == ("anna", "Ben")


def test_pairs_are_dealt_in_turn_and_every_so_many_go_to_two(make_pairs):
    pairs = make_pairs(8)
    shares = deal(pairs, ["anna", "ben", "cy"], 0.25)
    assert [len(share) for share in shares.values()] == [4, 3, 3]
    asked = Counter(pair.pair_id for share in shares.values() for pair, _ in share)
    assert [asked[pair.pair_id] for pair in pairs] == [1, 1, 1, 2, 1, 1, 1, 2]
    for share in shares.values():
        assert len({pair.pair_id for pair, _ in share}) == len(share)


def test_more_pairs_change_nothing_about_the_first(make_pairs):
    few = deal(make_pairs(5), ["anna", "ben"], 0.3)
    many = deal(make_pairs(9), ["anna", "ben"], 0.3)
    assert all(many[name][: len(few[name])] == few[name] for name in few)


def test_one_reviewer_is_asked_about_each_pair_once(make_pairs):
    assert [copy for _, copy in deal(make_pairs(4), ["anna"], 1.0)["anna"]] == [0, 0, 0, 0]
    assert len(deal(make_pairs(4), [], 1.0)[""]) == 4
