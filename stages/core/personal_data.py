"""Personal data in text: e-mail addresses, telephone numbers, IP addresses and card numbers.

Found by patterns and then checked: card numbers by issuer and Luhn sum, addresses by ``ipaddress``,
telephone numbers by ``phonenumbers``. Presidio's recognisers check the same way, but take 7 seconds
to import, torch and spaCy among it.
"""

import hashlib
import ipaddress
import re
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import phonenumbers

KINDS = ("email", "phone", "ip_address", "credit_card")
PHONE_DIGITS = 9
"""So many digits at the end of a telephone number are the same with and without the country's or
the trunk prefix."""
NORTH_AMERICAN = re.compile(r"1?([2-9]\d\d[2-9]\d{6})")
"""Numbers there have ten digits, the area code among them, and no trunk prefix."""


class PersonalData(NamedTuple):
    """One place in a text that holds personal data."""

    kind: str
    value: str
    """As it is written there."""


def redact(text: str, kinds: tuple[str, ...], found: list[PersonalData]) -> str:
    """The text with personal data of these kinds replaced by placeholders such as [EMAIL]; what
    they replace is added to ``found``."""

    def replace(kind: str, is_personal: Callable[[str], bool], match: re.Match[str]) -> str:
        if not is_personal(match.group()):
            return match.group()
        found.append(PersonalData(kind, match.group()))
        return f"[{kind.upper()}]"

    for kind, gate, pattern, is_personal in PATTERNS:
        if kind in kinds and gate.search(text):
            text = pattern.sub(partial(replace, kind, is_personal), text)
    return text


def find(text: str, kinds: tuple[str, ...] = KINDS) -> list[PersonalData]:
    """The personal data of these kinds in a text."""
    found: list[PersonalData] = []
    redact(text, kinds, found)
    return found


def digest(found: PersonalData) -> str:
    """SHA-256 of the value in one spelling: another spelling of the same address or number has the
    same digest.

    It keeps the value out of sight and no more: whoever has the digests finds telephone numbers,
    IP addresses and cards by trying them all, under any hash or salt kept beside them.
    """
    return hashlib.sha256(f"{found.kind}:{_one_spelling(found)}".encode()).hexdigest()


def _one_spelling(found: PersonalData) -> str:
    if found.kind == "ip_address":
        return ipaddress.ip_address(found.value).compressed
    if found.kind == "email":
        return found.value.casefold()
    digits = re.sub(r"\D", "", found.value)
    if found.kind != "phone":
        return digits
    north_american = NORTH_AMERICAN.fullmatch(digits)
    return north_american[1] if north_american else digits[-PHONE_DIGITS:]


# ------------------------------------------------------------------------------------ recognising

EMAIL = re.compile(
    r"(?<![\w.+%-])[\w.+%-]{1,64}@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}[^\W\d_]{2,24}(?![\w-])"
)
# 13 to 19 digits in a row, or in the groups printed on cards.
CREDIT_CARD = re.compile(
    r"(?<![\w.,+-])(?:\d{13,19}|\d{4}([ -])\d{4}\1\d{4}\1\d{1,7}|\d{4}([ -])\d{6}\2\d{4,5})"
    r"(?![\w-]|[.,]\d)"
)
CREDIT_CARD_ISSUER = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}"
    r"|3[47]\d{13}|3(?:0[0-5]|[68]\d)\d{11}|(?:6011|65\d\d|64[4-9]\d)\d{12}|35(?:2[89]|[3-8]\d)\d{12}"
)
IP_ADDRESS = re.compile(
    r"(?<![\w.])(?<![A-Za-z]/)\d{1,3}(?:\.\d{1,3}){3}(?!\w|\.\d)"
    r"|(?<![\w:.])[0-9A-Fa-f]{1,4}:(?:[0-9A-Fa-f]{0,4}:){1,6}[0-9A-Fa-f]{1,4}(?![\w:])"
)
# Starts with +, a bracket or a digit; goes on in digits, spaces, dots, hyphens, slashes, brackets.
PHONE = re.compile(
    r"(?<![\w.,+/$€£#:-])(?:\+|\(\+?(?=\d{1,5}\)))?\d[\d \u00a0()./-]{6,20}\d(?![\w%]|[.,]\d)"
)
PHONE_NORTH_AMERICA = re.compile(
    r"(?:\+?1[ .-]?)?(?:\(\d{3}\) ?\d{3}[ .-]\d{4}|\d{3}([.-])\d{3}\1\d{4})"
)
PHONE_REGIONS = ("GB", "FR", "DE", "ES", "IT", "AU", "IN", "JP", "BR")
DATE = re.compile(r"\d{1,4}[./ -]\d{1,2}[./ -]\d{1,4}")


def is_credit_card(found: str) -> bool:
    """Whether the digits have an issuer's prefix and length and a right check digit."""
    digits = re.sub(r"\D", "", found)
    if not CREDIT_CARD_ISSUER.fullmatch(digits):
        return False
    doubled = (sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (sum(map(int, digits[-1::-2])) + sum(doubled)) % 10 == 0


def is_personal_ip(found: str) -> bool:
    """Whether this is an address that can belong to somebody: not a section number (of small
    numbers only), and not of a private, local or reserved network."""
    try:
        address = ipaddress.ip_address(found)
    except ValueError:
        return False
    if address.version == 4 and all(int(octet) <= 30 for octet in found.split(".")):
        return False
    if address.version == 6 and address.packed[0] >> 5 != 1:  # all but 2000::/3 is unassigned
        return False
    is_example = any(address in network for network in EXAMPLE_NETWORKS)
    return is_example or (address.is_global and not address.is_multicast)


EXAMPLE_NETWORKS = [
    ipaddress.ip_network(network)
    for network in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")
]
"""Used in writing in place of real addresses (RFC 5737, RFC 3849), so written like them."""


def is_phone(found: str) -> bool:
    """Whether this is written like a telephone number: in international form, in the North American
    groups, or with the leading 0 of a national number that exists in one of a few countries."""
    number = found.strip(" .-/")
    if PHONE_NORTH_AMERICA.fullmatch(number):
        return True
    groups = re.findall(r"\d+", number)
    digits = "".join(groups)
    if number.lstrip("(").startswith("+"):
        return _is_valid_phone(number, None)
    is_grouped = 2 <= len(groups) <= 5 and all(len(group) >= 2 for group in groups)
    if not is_grouped or not digits.startswith("0") or not 9 <= len(digits) <= 12:
        return False
    if DATE.fullmatch(number) or re.match(r"0\.", number):
        return False
    return any(_is_valid_phone(number, region) for region in PHONE_REGIONS)


PATTERNS: tuple[tuple[str, re.Pattern[str], re.Pattern[str], Callable[[str], bool]], ...] = (
    ("email", re.compile("@"), EMAIL, bool),
    ("credit_card", re.compile(r"\d(?:[ -]?\d){12}"), CREDIT_CARD, is_credit_card),
    (
        "ip_address",
        re.compile(r"[.:][0-9A-Fa-f]{0,4}[.:][0-9A-Fa-f]"),
        IP_ADDRESS,
        is_personal_ip,
    ),
    ("phone", re.compile(r"\d[\d \u00a0()./-]{6,20}\d"), PHONE, is_phone),
)
"""Kind, a quick pattern without which there is none, the pattern, and what a match must pass. In
this order: a card number must not be taken for a telephone number."""


def _is_valid_phone(number: str, region: str | None) -> bool:
    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(number, region))
    except phonenumbers.NumberParseException:
        return False
