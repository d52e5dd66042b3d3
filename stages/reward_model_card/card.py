"""The card itself, as JSON for other stages and as Markdown for people."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from stages.core.markdown_text import escape
from stages.reward_model_card.figures import Row, percent
from stages.reward_model_card.tables import Table

MAX_SHOWN_CHARACTERS = 500
"""Longer prompts and replies are cut in card.md; card.json has them whole."""


@dataclass(frozen=True)
class Card:
    """All that the stage found."""

    num_pairs: int
    rows: list[Row]
    tables: list[Table]
    plots: list[dict[str, str]]
    """Name of the file below plots/, title and caption."""
    worst_pairs: list[dict[str, Any]]
    notes: list[str]
    refusals: list[str]
    """Why it does not pass its gate; none where it does."""


def as_json(card: Card) -> dict[str, Any]:
    """The card in types of JSON; an end of an interval that there is not is null."""
    return {
        "num_pairs": card.num_pairs,
        "refusals": card.refusals,
        "rows": [row._asdict() for row in card.rows],
        "tables": [table._asdict() for table in card.tables],
        "plots": card.plots,
        "worst_pairs": card.worst_pairs,
        "notes": card.notes,
    }


def as_markdown(card: Card) -> str:
    """The card as Markdown, with links to its plots."""
    return "\n".join(_lines(card))


# ------------------------------------------------------------------------------------ helpers


def _lines(card: Card) -> Iterator[str]:
    yield "# Reward model card\n"
    yield (
        f"The reward model stands in for the people who compared replies. Here it ranks "
        f"{card.num_pairs} pairs that it never saw, beside judges that understand nothing: what it "
        "does not do better than they, it has not learned.\n"
    )
    if card.refusals:
        yield "**It does not pass the gate before PPO:**\n"
        yield from (f"- {escape(reason)}" for reason in card.refusals)
    else:
        yield "**It passes the gate before PPO.**"
    yield "\n## Figures\n"
    yield from _table(
        ["figure", "value", "95 % interval"],
        [
            [
                f"**{escape(row.label)}**<br><small>{escape(row.explanation)}</small>",
                escape(_shown(row, row.value)),
                ""
                if row.low is None or row.high is None
                else escape(f"{_shown(row, row.low)} to {_shown(row, row.high)}"),
            ]
            for row in card.rows
        ],
    )
    yield ""
    for plot in card.plots:
        yield f"![{escape(plot['title'])}](plots/{plot['name']}.png)\n\n{escape(plot['caption'])}\n"
    for table in card.tables:
        yield f"## {escape(table.title)}\n\n{escape(table.explanation)}\n"
        if table.rows:
            yield from _table(table.columns, [[*map(escape, row)] for row in table.rows])
            yield ""
    yield "## Worst pairs\n"
    yield from _worst(card.worst_pairs)
    yield "\n## How it was measured\n"
    yield from (f"- {escape(note)}" for note in card.notes)
    yield ""


def _worst(pairs: Sequence[dict[str, Any]]) -> Iterator[str]:
    if not pairs:
        yield "None is shown: no pair is ranked against people's choice, or none was asked for."
        return
    yield f"The {len(pairs)} pairs that it ranks most wrongly, whole in `card.json`.\n"
    yield from _table(
        ["prompt", "people preferred", "the model preferred", "difference"],
        [
            [
                escape(_cut(pair["prompt"])),
                _side(pair, "chosen"),
                _side(pair, "rejected"),
                escape(_number(pair["margin"], 2)),
            ]
            for pair in pairs
        ],
    )


def _side(pair: dict[str, Any], side: str) -> str:
    figures = f"score {_number(pair[f'score_{side}'], 2)} · {pair[f'length_{side}']} tokens"
    return f"{escape(_cut(pair[side]))}<br><small>{escape(figures)}</small>"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield f"|{'---|' * len(columns)}"
    yield from (f"| {' | '.join(row)} |" for row in rows)


def _shown(row: Row, value: float) -> str:
    if "_minus_" in row.name:
        return f"{100 * value:+.1f} points".replace("-", "−")
    return percent(value) if row.is_share else _number(value, 3)


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}".replace("-", "−")


def _cut(text: str) -> str:
    rest = len(text) - MAX_SHOWN_CHARACTERS
    return text if rest <= 0 else f"{text[:MAX_SHOWN_CHARACTERS]}… ({rest} more characters)"
