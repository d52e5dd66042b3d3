"""Numbers of bank accounts (IBAN) and of payment cards."""

import re
from collections.abc import Iterator

from stdnum import iban, luhn

from stages.core.personal_data.recogniser import WORD, Recogniser, Span, one_of, surroundings

IBAN = re.compile(
    rf"[A-Za-z](?<![{WORD}].)[A-Za-z]\d\d(?:[ -]?[A-Za-z0-9]{{4}}){{2,7}}"
    rf"(?:[ -]?[A-Za-z0-9]{{1,3}})?(?![{WORD}])"
)
SEPARATED = re.compile(r"[ -]")
# 12 to 19 digits in a row, or in the groups printed on cards.
CARD = re.compile(
    rf"\d(?<![{WORD}.,+-].)(?:\d{{11,18}}|\d{{3}}([ -])\d{{4}}\1\d{{4}}\1\d{{1,7}}"
    rf"|\d{{3}}([ -])\d{{6}}\2\d{{4,5}})(?![{WORD}-]|[.,]\d)"
)
ISSUED = re.compile(
    r"4(?:\d{15}|\d{18})|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}"
    r"|3[47]\d{13}|3(?:0[0-5]|[68]\d)\d{11}|(?:6011|65\d\d|64[4-9]\d)\d{12}|35(?:2[89]|[3-8]\d)\d{12}"
    r"|62\d{14,17}|220[0-4]\d{12}"
)
"""Prefix and length of Visa, Mastercard, American Express, Diners, Discover, JCB, UnionPay, Mir."""
ISSUED_SELDOM = re.compile(r"4\d{12}|(?:5[0678]|6\d)\d{10,17}|1\d{14}|(?:81|82|508|9792)\d{12,14}")
"""Old Visa, Maestro, UATP, RuPay, Troy: so short a prefix that a word must say it."""
CARD_WORDS = one_of(
    "cards?", "credit", "debit", "visa", "mastercard", "maestro", "amex", "american express",
    "diners", "discover", "jcb", "unionpay", "payment", "cc", "karte", "kreditkarte", "tarjeta",
    "carte", "carta", "cartão", "银行卡", "信用卡", "卡号", "カード",
)  # fmt: skip


def iban_spans(line: str) -> Iterator[Span]:
    """Account numbers with the right check digits and their country's length; what follows one in
    groups of four is left."""
    for match in IBAN.finditer(line):
        found = match.group()
        ends = [at.start() for at in SEPARATED.finditer(found)]
        for end in (len(found), *reversed(ends)):
            if iban.is_valid(found[:end], check_country=False):
                yield match.start(), match.start() + end
                break


def card_spans(line: str) -> Iterator[Span]:
    """Numbers with an issuer's prefix and length and a right check digit (Luhn)."""
    for match in CARD.finditer(line):
        digits = re.sub(r"\D", "", match.group())
        is_issued = ISSUED.fullmatch(digits) or (
            ISSUED_SELDOM.fullmatch(digits) and CARD_WORDS.search(surroundings(line, *match.span()))
        )
        if is_issued and luhn.is_valid(digits):
            yield match.span()


IBANS = Recogniser("iban", r"[A-Za-z]{2}[0-9]{2}[ -]?[A-Za-z0-9]{4}[ -]?[A-Za-z0-9]{4}", iban_spans)
CREDIT_CARDS = Recogniser("credit_card", r"[0-9](?:[ -]?[0-9]){11}", card_spans)
