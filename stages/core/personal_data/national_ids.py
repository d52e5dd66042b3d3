"""Numbers by which states know people: of identity, tax, social and health insurance.

A form that nothing else has (123-45-6789, the Chinese 18 digits) is believed by its check digits;
plain digits and common forms only beside a word such as SSN or 身份证. ``stdnum`` knows the checks.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from stdnum.ar import dni as ar_dni
from stdnum.au import tfn
from stdnum.be import nn
from stdnum.br import cpf
from stdnum.ca import sin
from stdnum.ch import ssn as ahv
from stdnum.cl import rut
from stdnum.cz import rc
from stdnum.de import idnr
from stdnum.dk import cpr
from stdnum.es import dni, nie
from stdnum.fi import hetu
from stdnum.fr import nir
from stdnum.gb import nhs
from stdnum.gr import amka
from stdnum.id import nik
from stdnum.ie import pps
from stdnum.il import idnr as il_idnr
from stdnum.in_ import aadhaar, pan
from stdnum.iso7064 import mod_11_2
from stdnum.it import codicefiscale
from stdnum.jp import in_ as my_number
from stdnum.kr import rrn
from stdnum.mx import curp
from stdnum.my import nric
from stdnum.nl import bsn
from stdnum.no import fodselsnummer
from stdnum.pk import cnic
from stdnum.pl import pesel
from stdnum.pt import nif
from stdnum.ro import cnp
from stdnum.se import personnummer
from stdnum.th import pin
from stdnum.tr import tckimlik
from stdnum.us import itin, ssn
from stdnum.za import idnr as za_idnr

from stages.core.personal_data.recogniser import (
    WORD,
    Recogniser,
    Span,
    surroundings,
    without_overlaps,
)


class Form(NamedTuple):
    """How one country's number is written, and the check that it must pass."""

    pattern: str
    is_valid: Callable[[str], bool]
    words: str = ""
    """One of these must stand near, with spaces between them; none: the form is enough."""


def _weighted(digits: Iterable[int], weights: Iterable[int]) -> int:
    return sum(digit * weight for digit, weight in zip(digits, weights, strict=True))


def is_singapore(number: str) -> bool:
    """The check letter of an NRIC or FIN: a weighted sum of the digits picks it."""
    total = _weighted(map(int, number[1:8]), (2, 7, 6, 5, 4, 3, 2))
    total += {"S": 0, "F": 0, "T": 4, "G": 4, "M": 3}[number[0]]
    letters = {"S": "JZIHGFEDCBA", "F": "XWUTRQPNMLK", "M": "KLJNPQRTUWX"}
    at = 10 - total % 11 if number[0] == "M" else total % 11
    return letters[{"T": "S", "G": "F"}.get(number[0], number[0])][at] == number[8]


def is_hong_kong(number: str) -> bool:
    """The check digit in brackets: with it the weighted sum is divisible by 11."""
    compact = re.sub(r"[()]", "", number).rjust(9)
    values = [36 if sign == " " else int(sign, 36) for sign in compact]
    return (
        sum(value * weight for value, weight in zip(values, range(9, 0, -1), strict=True)) % 11 == 0
    )


def is_taiwanese(number: str) -> bool:
    """The letter stands for two digits; the weighted sum is divisible by 10."""
    letter = "ABCDEFGHJKLMNPQRSTUVXYWZIO".index(number[0]) + 10
    digits = [letter // 10, letter % 10, *map(int, number[1:])]
    return (
        sum(d * w for d, w in zip(digits, (1, 9, 8, 7, 6, 5, 4, 3, 2, 1, 1), strict=True)) % 10 == 0
    )


def is_korean(number: str) -> bool:
    """A date of birth; since 2020 the last digits are random."""
    return 1 <= int(number[2:4]) <= 12 and 1 <= int(number[4:6]) <= 31


def is_nino(number: str) -> bool:
    """Prefixes that were never given out; there is no check digit."""
    return number[:2] not in {"BG", "GB", "NK", "KN", "TN", "NT", "ZZ"}


def _is_valid_ssn(number: str) -> bool:
    return ssn.is_valid(number.replace(" ", "-")) or itin.is_valid(number)


def is_chinese(number: str) -> bool:
    """The check digit, and a date of birth. Not the place of birth: counties come and go."""
    month, day = int(number[10:12]), int(number[12:14])
    return 1 <= month <= 12 and 1 <= day <= 31 and mod_11_2.is_valid(number.upper())


def is_old_chinese(number: str) -> bool:
    """Numbers of before 1999 have 15 digits, with the date of birth from the seventh on, and no
    check digit."""
    return 1 <= int(number[8:10]) <= 12 and 1 <= int(number[10:12]) <= 31


def _is_medicare(number: str) -> bool:
    """Australia's: the ninth digit checks the first eight."""
    digits = [int(sign) for sign in number if sign.isdigit()]
    return _weighted(digits[:8], (1, 3, 7, 9, 1, 3, 7, 9)) % 10 == digits[8]


UNMISTAKABLE = (
    Form(r"[1-9]\d{5}(?:19|20)\d\d[01]\d[0-3]\d{4}[0-9Xx]", is_chinese),  # China
    Form(r"\d{3}-\d\d-\d{4}", _is_valid_ssn),  # United States
    Form(r"[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d\d ?\d\d ?\d\d ?[A-D]", is_nino),  # Britain
    Form(r"\d{8}[- ]?[A-HJ-NP-TV-Z]", dni.is_valid),  # Spain
    Form(r"[XYZ][- ]?\d{7}[- ]?[A-HJ-NP-TV-Z]", nie.is_valid),  # Spain
    Form(r"[A-Za-z]{6}\d\d[A-EHLMPR-Ta-ehlmpr-t]\d\d[A-Za-z]\d{3}[A-Za-z]", codicefiscale.is_valid),
    Form(r"[12] \d\d \d\d (?:\d\d|2[AB]) \d{3} \d{3} \d\d", nir.is_valid),  # France
    Form(r"\d{3}\.\d{3}\.\d{3}-\d\d", cpf.is_valid),  # Brazil
    Form(r"[2-9]\d{3}([ -])\d{4}\1\d{4}", aadhaar.is_valid),  # India
    Form(r"[A-Z]{3}[ABCFGHJLPT][A-Z]\d{4}[A-Z]", pan.is_valid),  # India
    Form(r"\d{6}-[1-8]\d{6}", is_korean),
    Form(r"\d{6}[-+]\d{4}", personnummer.is_valid),  # Sweden
    Form(r"\d{6}[-+A-FU-Y]\d{3}[0-9A-Y]", hetu.is_valid),  # Finland
    Form(r"\d\d\.\d\d\.\d\d-\d{3}\.\d\d", nn.is_valid),  # Belgium
    Form(r"756\.\d{4}\.\d{4}\.\d\d", ahv.is_valid),  # Switzerland
    Form(r"\d-\d{4}-\d{5}-\d\d-\d", pin.is_valid),  # Thailand
    Form(r"[A-Z]{4}\d{6}[HM][A-Z]{5}[0-9A-Z]\d", curp.is_valid),  # Mexico
    Form(r"\d{1,2}\.\d{3}\.\d{3}-[0-9kK]", rut.is_valid),  # Chile
    Form(r"\d{5}-\d{7}-\d", cnic.is_valid),  # Pakistan
    Form(r"[STFGM]\d{7}[A-Z]", is_singapore),
    Form(r"[A-Z]{1,2}\d{6}\([0-9A]\)", is_hong_kong),
    Form(r"[A-Z][12]\d{8}", is_taiwanese),
)  # fmt: skip

BESIDE_A_WORD = (
    Form(r"\d{3}[- .]?\d\d[- .]?\d{4}", _is_valid_ssn, "ssn ssns social itin ss taxpayer tin"),
    Form(r"9\d\d-\d\d-\d{4}", bool, "ssn social"),  # not given out: of examples
    Form(r"[A-Z]{2} ?\d\d ?\d\d ?\d\d ?[A-Z]", bool, "nino insurance social"),
    Form(r"\d{3}[ -]?\d{3}[ -]?\d{4}", nhs.is_valid, "nhs"),
    Form(r"[12][ .]?\d\d[ .]?\d\d[ .]?(?:\d\d|2[AB])[ .]?\d{3}[ .]?\d{3}[ .]?\d\d", nir.is_valid,
         "nir insee sécu sécurité securite social"),
    Form(r"\d\d ?\d{3} ?\d{3} ?\d{3}", idnr.is_valid, "steuer steuerid idnr steuernummer tin tax"
         " steuerliche steueridentifikationsnummer identifikationsnummer"),
    Form(r"\d{11}", cpf.is_valid, "cpf cadastro social"),
    Form(r"\d{12}", aadhaar.is_valid, "aadhaar aadhar uidai uid आधार"),
    Form(r"\d{11}", pesel.is_valid, "pesel"),
    Form(r"\d{4}[. ]?\d\d[. ]?\d{3}|\d{9}", bsn.is_valid, "bsn burgerservicenummer sofinummer"),
    Form(r"\d{3} ?\d{3} ?\d{3}", tfn.is_valid, "tfn tax"),
    Form(r"[2-6]\d{3} ?\d{5} ?\d", _is_medicare, "medicare"),
    Form(r"\d{3}[- ]?\d{3}[- ]?\d{3}", sin.is_valid, "sin social nas"),
    Form(r"\d{6}[- ]?\d{4}", cpr.is_valid, "cpr personnummer"),
    Form(r"(?:\d\d)?\d{6}[- ]?\d{4}", personnummer.is_valid, "personnummer personnr pnr"),
    Form(r"\d{6} ?\d{5}", fodselsnummer.is_valid, "fødselsnummer personnummer fnr"),
    Form(r"\d{9}", nif.is_valid, "nif contribuinte"),
    Form(r"\d{7}[A-Wa-w][ABWTXZabwtxz]?", pps.is_valid, "pps ppsn"),
    Form(r"\d{13}", cnp.is_valid, "cnp numeric"),
    Form(r"\d{6}/?\d{3,4}", rc.is_valid, "rodné rodne rč"),
    Form(r"\d{11}", tckimlik.is_valid, "tc kimlik"),
    Form(r"\d{13}", za_idnr.is_valid, "id identity rsa"),
    Form(r"\d\d\.?\d{3}\.?\d{3}", ar_dni.is_valid, "dni documento"),
    Form(r"\d{9}", il_idnr.is_valid, "teudat ת.ז"),
    Form(r"\d{16}", nik.is_valid, "nik ktp"),
    Form(r"\d{6}-\d\d-\d{4}", nric.is_valid, "nric mykad ic identity"),
    Form(r"\d{11}", amka.is_valid, "amka αμκα"),
    Form(r"\d{4} ?\d{4} ?\d{4}", my_number.is_valid, "マイナンバー 個人番号"),
    Form(r"\d{13}", pin.is_valid, "thai เลขประจำตัว"),
    Form(r"\d{13}", rrn.is_valid, "rrn resident 주민등록번호 주민번호"),
    Form(r"\d{15}", is_old_chinese, "身份证 公民身份"),
)  # fmt: skip


def _bounded(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![{WORD}.,+/$€£-])(?:{pattern})(?![{WORD}]|[-.,]\d)")


UNMISTAKABLE_FORMS = [(_bounded(form.pattern), form.is_valid) for form in UNMISTAKABLE]
WORDED_FORMS = [
    (frozenset(form.words.split()), _bounded(form.pattern), form.is_valid) for form in BESIDE_A_WORD
]
ALL_WORDS = frozenset[str]().union(*(words for words, _, _ in WORDED_FORMS))
LATIN = re.compile(r"[a-z\u00c0-\u058f]+")
OTHER_SCRIPTS = re.compile("|".join(word for word in ALL_WORDS if not LATIN.fullmatch(word)))
"""From Hebrew on: prefixes, suffixes or no spaces join these words to others."""


def unmistakable_spans(line: str) -> Iterator[Span]:
    """Numbers in a form that nothing else has, with the right check digits."""
    found = [
        match.span()
        for pattern, is_valid in UNMISTAKABLE_FORMS
        for match in pattern.finditer(line)
        if is_valid(match.group())
    ]
    return without_overlaps(found)


def worded_spans(line: str) -> Iterator[Span]:
    """Numbers with the right check digits beside a word that says what they are."""
    said = _words(line)
    found = [
        match.span()
        for words, pattern, is_valid in WORDED_FORMS
        if not words.isdisjoint(said)
        for match in pattern.finditer(line)
        if is_valid(match.group())
        and not words.isdisjoint(_words(surroundings(line, *match.span())))
    ]
    return without_overlaps(found)


def _words(text: str) -> frozenset[str]:
    folded = text.casefold()
    return ALL_WORDS.intersection([*LATIN.findall(folded), *OTHER_SCRIPTS.findall(folded)])


NATIONAL_IDS = Recogniser(
    "national_id",
    "|".join(
        re.sub(r"\(\[ -\]\)|\\1", "[ -]", form.pattern).replace(r"\d", "[0-9]")
        for form in UNMISTAKABLE
    ),
    unmistakable_spans,
)
WORDED_NATIONAL_IDS = Recogniser("national_id", r"[0-9](?:[ ./-]?[0-9]){5}", worded_spans)
