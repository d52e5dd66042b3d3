"""How much is left in the queues."""

from stages.core import tracking
from stages.core.tracking.reviews.api import ask
from stages.core.tracking.reviews.queues import items


def test_what_waits_and_what_is_done(client, config, make_pairs, run_id):
    opened = tracking.open_queue(config, make_pairs(3), run_id)
    first = items(opened.experiment_id)[0]
    ask(
        "set_review_queue_item_status",
        first.queue_id,
        item_id=first.trace_id,
        status="declined",
        completed_by="anna",
    )
    (state,) = tracking.queue_states(config.experiment)
    assert (state.name, state.pending, state.finished) == ("round 1", 2, 1)
    assert state.page == opened.page


def test_who_has_said_something(client, config, make_pairs, judged, run_id):
    pairs = make_pairs(2)
    rows = [judged(pair, annotator=name) for pair in pairs for name in ("anna", "ben")]
    tracking.record_judgments(config.experiment, rows[:3], run_id)
    assert tracking.annotators(config.experiment) == {"anna": 2, "ben": 1}


def test_without_an_experiment_there_are_no_queues(client):
    assert tracking.queue_states("no such experiment") == []
    assert tracking.annotators("no such experiment") == {}
