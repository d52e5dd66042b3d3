"""Redaction of one text."""

import re
from typing import NamedTuple

from stages.core.personal_data.banking import CREDIT_CARDS, IBANS
from stages.core.personal_data.emails import EMAILS
from stages.core.personal_data.ip_addresses import IP_ADDRESSES
from stages.core.personal_data.national_ids import NATIONAL_IDS, WORDED_NATIONAL_IDS
from stages.core.personal_data.phones import PHONES
from stages.core.personal_data.recogniser import Recogniser
from stages.core.personal_data.secrets import PRIVATE_KEY, SECRETS, UNPREFIXED_SECRETS

KINDS = ("email", "phone", "ip_address", "iban", "credit_card", "national_id", "secret")
RECOGNISERS = (
    SECRETS, UNPREFIXED_SECRETS, EMAILS, IBANS, CREDIT_CARDS, NATIONAL_IDS, WORDED_NATIONAL_IDS,
    IP_ADDRESSES, PHONES,
)  # fmt: skip
"""In this order: the password and host of a URL are not an e-mail address, and the digits of the
others must not be taken for a telephone number."""

GATES = tuple(re.compile(recogniser.gate) for recogniser in RECOGNISERS)


class PersonalData(NamedTuple):
    """One place in a text that holds personal data."""

    kind: str
    value: str
    """As it is written there."""


def redact(text: str, kinds: tuple[str, ...], found: list[PersonalData]) -> str:
    """The text with personal data of these kinds replaced by placeholders such as [EMAIL]; what
    they replace is added to ``found``."""
    if "secret" in kinds:
        text = redact_private_keys(text, found)
    return "\n".join(redact_line(line, kinds, found) for line in text.split("\n"))


def find(text: str, kinds: tuple[str, ...] = KINDS) -> list[PersonalData]:
    """The personal data of these kinds in a text."""
    found: list[PersonalData] = []
    redact(text, kinds, found)
    return found


def redact_private_keys(text: str, found: list[PersonalData]) -> str:
    """The text without private keys, the only personal data of several lines."""
    if "PRIVATE KEY" not in text:
        return text

    def replace(match: re.Match[str]) -> str:
        found.append(PersonalData("secret", match.group()))
        return "[SECRET]"

    return PRIVATE_KEY.sub(replace, text)


def redact_line(line: str, kinds: tuple[str, ...], found: list[PersonalData]) -> str:
    """``redact`` for one line."""
    for recogniser, gate in zip(RECOGNISERS, GATES, strict=True):
        if recogniser.kind in kinds and gate.search(line):
            line = redact_kind(line, recogniser, found)
    return line


def redact_kind(line: str, recogniser: Recogniser, found: list[PersonalData]) -> str:
    """The line with what one recogniser finds replaced."""
    pieces, last = [], 0
    for start, end in recogniser.spans(line):
        found.append(PersonalData(recogniser.kind, line[start:end]))
        pieces += [line[last:start], f"[{recogniser.kind.upper()}]"]
        last = end
    return "".join([*pieces, line[last:]]) if last else line
