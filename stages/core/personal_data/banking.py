"""Numbers of bank accounts (IBAN) and of payment cards."""

import re
from collections.abc import Iterator

from stdnum import iban, luhn
from stdnum.iso7064 import mod_97_10

from stages.core.personal_data.recogniser import WORD, Recogniser, Span, one_of, surroundings

IBAN = re.compile(
    rf"[A-Za-z](?<![{WORD}].)[A-Za-z]\d\d(?:[ -]?[A-Za-z0-9]{{4}}){{2,7}}"
    rf"(?:[ -]?[A-Za-z0-9]{{1,3}})?(?![{WORD}])"
)
BANK_WORDS = one_of(
    "iban", "bank", "account", "transfer", "konto", "cuenta", "compte", "conto", "rekening",
    "银行", "账户", "账号",
)  # fmt: skip
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
"""Prefix and length of Visa, Mastercard, American Express, Diners, Discover, JCB, UnionPay, Mir.
Others (Maestro, RuPay, the old Visa) are told by a word."""
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
            if is_iban(found[:end], line, match.start()):
                yield match.start(), match.start() + end
                break


def is_iban(number: str, line: str, start: int) -> bool:
    """Whether the check digits are right, and the country's format is, or a word speaks of banks
    (made-up numbers often have the wrong length)."""
    if iban.is_valid(number, check_country=False):
        return True
    compact = iban.compact(number)
    is_checked = 15 <= len(compact) <= 34 and mod_97_10.is_valid(compact[4:] + compact[:4])
    return is_checked and bool(BANK_WORDS.search(surroundings(line, start, start + len(number))))


def card_spans(line: str) -> Iterator[Span]:
    """Numbers with a right check digit (Luhn) and an issuer's prefix and length or a word."""
    for match in CARD.finditer(line):
        digits = re.sub(r"\D", "", match.group())
        if luhn.is_valid(digits) and (
            ISSUED.fullmatch(digits) or CARD_WORDS.search(surroundings(line, *match.span()))
        ):
            yield match.span()


IBANS = Recogniser("iban", r"[A-Za-z]{2}[0-9]{2}[ -]?[A-Za-z0-9]{4}[ -]?[A-Za-z0-9]{4}", iban_spans)
CREDIT_CARDS = Recogniser("credit_card", r"[0-9](?:[ -]?[0-9]){11}", card_spans)
