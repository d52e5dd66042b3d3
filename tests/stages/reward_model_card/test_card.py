"""The card as JSON and as Markdown, whatever stands in the replies."""

import json
from typing import Any

import markdown
import pytest

from stages.core.config import RewardModelCardConfig
from stages.reward_model_card import plots
from stages.reward_model_card.card import MAX_SHOWN_CHARACTERS, Card, as_json, as_markdown
from stages.reward_model_card.figures import headline, notes
from stages.reward_model_card.pairs import Judged
from stages.reward_model_card.tables import tables, worst_pairs

HOSTILE = "<script>alert(1)</script> | a *b* _c_ `d`\n# no heading\n\n| x | y |"


def make_card(judged: Judged, **changes: Any) -> Card:
    rows = headline(judged, num_samples=100, seed=0)
    given: dict[str, Any] = {
        "num_pairs": judged.num_pairs,
        "rows": rows,
        "tables": tables(judged),
        "plots": [plot.about for plot in plots.draw(judged, rows)],
        "worst_pairs": worst_pairs(judged, 5),
        "notes": notes(judged, RewardModelCardConfig()),
        "refusals": [],
    }
    return Card(**given | changes)


def test_json_holds_what_the_evaluation_reads(many_judged: Judged) -> None:
    card = json.loads(json.dumps(as_json(make_card(many_judged)), allow_nan=False))
    assert card["num_pairs"] == 200
    assert card["rows"][0].keys() == {
        "name", "label", "explanation", "value", "low", "high", "is_share",
    }  # fmt: skip
    assert card["tables"][0].keys() == {"title", "explanation", "columns", "rows"}
    assert card["plots"][0].keys() == {"name", "title", "caption"}
    assert len(card["worst_pairs"]) == 5
    (ece,) = [row for row in card["rows"] if row["name"] == "ece"]
    assert ece["low"] is None


def test_markdown_can_be_read_alone(many_judged: Judged) -> None:
    text = as_markdown(make_card(many_judged))
    page = markdown.markdown(text, extensions=["tables"])
    assert page.count("<table>") == 6
    for part in ("Bag of words", "passes the gate", "points</td>", "Accuracy by source"):
        assert part in page


def test_refusals_stand_at_the_top(many_judged: Judged) -> None:
    text = as_markdown(make_card(many_judged, refusals=["it is a coin", "it is a die"]))
    head = text.split("## Figures")[0]
    assert "does not pass" in head
    assert "- it is a coin\n- it is a die" in head


def test_replies_show_as_they_were_written(make_judged: Any) -> None:
    judged = make_judged([-1.0], prompts=[HOSTILE], chosen=[HOSTILE], rejected=["x" * 2000])
    text = as_markdown(make_card(judged))
    page = markdown.markdown(text, extensions=["tables"])
    assert "<script" not in page
    assert "no heading</h1>" not in page
    assert f"({2000 - MAX_SHOWN_CHARACTERS} more characters)" in page
    assert as_json(make_card(judged))["worst_pairs"][0]["rejected"] == "x" * 2000


@pytest.mark.parametrize("margin", [1.0, 0.0])
def test_without_a_wrong_pair_the_card_says_so(margin: float, make_judged: Any) -> None:
    text = as_markdown(make_card(make_judged([margin])))
    assert "no pair is ranked against people's choice" in text
