"""Any text inside Markdown, shown as it was written."""

import re
import unicodedata

SPECIAL = re.compile(r"[&<>\\`*_\[\]{}#|~$@^=]|(?<=www)\.|:(?=//)", re.IGNORECASE)
"""What could begin HTML, Markdown, a formula or an automatic link inside a line."""


def escape(text: str) -> str:
    """Any text as one line of Markdown that shows it literally, in a table cell too.

    Line ends become ``<br>``, control characters their visible symbols, and whatever Markdown or
    HTML could take for its own a character reference.
    """
    lines = text.replace("\r\n", "\n").replace("\r", "\n").replace("\u2028", "\n").split("\n")
    return "<br>".join(
        SPECIAL.sub(lambda match: f"&#{ord(match[0])};", "".join(map(_visible, line)))
        for line in lines
    )


def _visible(character: str) -> str:
    category = unicodedata.category(character)
    if character == "\t":
        return " "
    if category == "Cc":
        return chr(0x2400 + ord(character)) if ord(character) < 0x20 else "\ufffd"
    # Surrogates cannot be written; the bidirectional controls would reorder what follows.
    is_bidirectional = character in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
    return "\ufffd" if category == "Cs" or is_bidirectional else character
