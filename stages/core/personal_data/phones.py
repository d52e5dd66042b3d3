"""Telephone numbers: in international form, or as written within a country."""

import re
from collections.abc import Iterator

import phonenumbers

from stages.core.personal_data.recogniser import LETTERS, WORD, Recogniser, Span, one_of

# Starts with +, a bracket or a digit; goes on in digits, spaces, dots, hyphens, slashes, brackets.
RUN = re.compile(
    rf"[+(\d](?<![{WORD}+/$€£¥#*-].)(?<!\d[.,:].)(?:(?<=\+)\(?\d|(?<=\()\+?\d|(?<=\d))"
    rf"(?:[ \u00a0()./-]{{0,3}}\d){{6,40}}(?!(?!x\d|ext)[{LETTERS}%]|[.,]\d)"
)
EXTENSION = re.compile(r" ?(?:x|ext\.?|extension) ?\d{1,6}(?!\d)", re.IGNORECASE)
PARTS = re.compile(r"\S+")
NORTH_AMERICAN = re.compile(
    r"(?:(?:\+?1|001)[ .-]?)?(?:\(\d{3}\) ?\d{3}[ .-]?\d{4}|\d{3}([.-])\d{3}\1\d{4})"
)
SPACED = re.compile(
    r"(?:1 )?[2-9]\d\d [2-9]\d\d \d{4}|\(0\d{2,4}\) \d{5,8}|\d\d-\d{4}-\d{4}"
    r"|\d\d (?!(?:1[5-9]|20)\d\d-)\d{4,5}-\d{4}"
)
"""In North America; in Germany with the city's prefix in brackets; in Japan, in Brazil."""
LOCAL = re.compile(r"\d{3,4}([ .-])\d{4}")
NINE_DIGITS = re.compile(r"\d{3}([ -])\d{3}\1\d{3}|\d{9,10}")
ARITHMETIC = re.compile(r"\d+(?:[./]| ?- ?| / )\d+|.*[.]\d+[ -].*|.*-\d+\..*")
"""Decimals, quotients and differences."""
CHINESE_MOBILE = re.compile(r"1[3-9]\d([ -]?)\d{4}\1\d{4}")
LEADING_ZERO = ("GB", "FR", "DE", "CN", "IT", "NL", "BE", "CH", "AT", "SE", "AU", "IN", "JP", "KR",
                "BR", "IL", "ZA", "TR", "TW", "NZ", "IE", "FI", "UA", "RO", "ID", "TH")  # fmt: skip
"""Countries whose numbers are believed with that prefix."""
TEN_DIGITS = ("US", "IN", "IT")
"""Countries whose ten digits in a row are believed near words that speak of people."""
NO_ZERO = ("US", "ES", "IT", "PT", "PL", "CZ", "DK", "NO", "GR", "HU", "MX", "SG", "HK", "CN",
           "IN", "BR", "RU", "CL", "AR", "CO", "LU")  # fmt: skip
"""Countries whose numbers are believed beside a word."""
MIN_DIGITS, MAX_DIGITS = 7, 15
"""The longest number that E.164 allows; shorter ones than the shortest local ones are others."""
MAX_PARTS = 7
"""Between spaces; the French write six."""
MAX_LABELLED_DIGITS = 11
"""Of a number that is believed by the word before it: with more, it holds something else."""
DATE = re.compile(
    r"(?:19|20)\d\d[01]\d[0-3]\d"
    r"|\(?(?:\d{1,2}([./-])\d{1,2}\1(?:\d\d){1,2}|[12]\d{3}([./ -])\d\d?\2\d\d?)(?: .*)?"
)
OPERATOR = re.compile(r"[=<>+*%&|^,\[({\"'-]\s*$")
"""Of a program: what follows is more likely a quantity."""
TEXT_AFTER = re.compile(r"$|[\s.,;:!?)\u3000-\u9fff\uff00-\uffef]")
AFTER_WORD = re.compile(rf"(?:[{LETTERS}]{{2}}[,:]? |[\u4e00-\u9fff])$")
POSTCODE = re.compile(r"\d{5}-\d{4}")
YEARS = re.compile(r"\(?[12]\d{3} ?[-/ ] ?[12]\d{3}\)?")
PHONE_NOUNS = (
    r"phones?|telephones?|tel|tél|mobiles?|cell(?:phone|ular)?|fax|sms|whatsapp|telegram|hotline"
    r"|helpline|teléfono|telefono|móvil|celular|telefone|telemóvel|téléphone|portable"
    r"|telefon(?:nummer)?|handy(?:nummer)?|rufnummer|mobil|telefoon|cellulare|телефону?|тел|моб"
)
PHONE_VERBS = (
    r"call(?:ed|ing|s)?|dial(?:ed|ing)?|text(?:ed|ing)?|ring|reach(?:ed)?|contact"
    r"|ll[aá]m[ae](?:r|me|nos)?|appele[rz]|anrufen|звоните"
)
ASIAN_PHONE_WORDS = (
    "电话|電話|手机|手機|联系|聯繫|致电|拨打|传真|热线|微信|座机|号码|携帯|전화|연락처"
)
NEAR_WORD = one_of(*f"{PHONE_NOUNS}|{PHONE_VERBS}|{ASIAN_PHONE_WORDS}".split("|"))
PEOPLE_WORDS = one_of(
    "my", "me", "his", "her", "their", "your", "number", "registered", "message", "messages",
    "office", "home", "name", "customer", "patient", "email", "mail", *PHONE_NOUNS.split("|"),
    *PHONE_VERBS.split("|"), *ASIAN_PHONE_WORDS.split("|"),
)  # fmt: skip
LABEL = re.compile(
    rf"(?:(?<![{LETTERS}])(?:{PHONE_NOUNS})|{ASIAN_PHONE_WORDS})"
    r"\.?(?:[_ -]?(?:number|no|nr|num))?\.?[\"'*)]*\s?(?:is|at|on|[=:：是为])?\s*[\"'*]*$"
    rf"|(?<![{LETTERS}])(?:{PHONE_VERBS})(?: (?:me|us|him|her|them))?(?: (?:at|on))? $",
    re.IGNORECASE,
)
"""Right before a number: then it is one, whether or not such numbers are in use."""
LETTER = re.compile(r"[^\W\d_]")
LABEL_AFTER = re.compile(
    r" ?[-(] ?(?:office|fax|phone|tel|mobile|cell|home|work|main|direct)\b", re.IGNORECASE
)
OTHER_LABEL = re.compile(
    r"(?:\b(?:isbn(?:-1[03])?|issn|doi|ids?|uid|pid|order|invoice|ref(?:erence)?|account|serial|sku"
    r"|part|version|ticket|case|timestamp|port|zip|ean|upc|tracking|imei|vin|commit|merge|sha)\b"
    r"|订单号?|编号|流水号|学号|工号)"
    r"(?:[_ -]?(?:number|no|nr|num|code))?[\"'.]*\s*(?:is|[#=:：是为])?\s*[\"'#]*$",
    re.IGNORECASE,
)


def phone_spans(line: str) -> Iterator[Span]:
    """Numbers in a line. A run of digits may hold more than a number ("020 7946 0958 2026"): it is
    tried whole, then without what stands after spaces, then without what stands before them."""
    for run in RUN.finditer(line):
        parts = [
            (run.start() + part.start(), run.start() + part.end())
            for part in PARTS.finditer(run.group())
        ]
        first = 0
        while first < len(parts):
            last, span = _longest_number(line, parts, first)
            if span:
                extension = EXTENSION.match(line, span[1])
                yield span[0], extension.end() if extension else span[1]
            first = last + 1


def _longest_number(line: str, parts: list[Span], first: int) -> tuple[int, Span | None]:
    """The last of the parts that make a number with the first one, and where the number is; none:
    the first part itself."""
    digits, last = 0, first
    while last < min(len(parts), first + MAX_PARTS) and digits <= MAX_DIGITS:
        digits += sum(map(str.isdigit, line[slice(*parts[last])]))
        last += 1
    for end in range(last - 1, first - 1, -1):
        span = _trimmed(line, parts[first][0], parts[end][1])
        if is_phone(line, *span):
            return end, span
    return first, None


def _trimmed(line: str, start: int, end: int) -> Span:
    while line[end - 1] in " .-/(":
        end -= 1
    if line[start] == "(" and ")" not in line[start:end]:
        start += 1
    return start, end


NEAR = 40
"""Characters before and after a number in which words are looked for."""


def is_phone(line: str, start: int, end: int) -> bool:
    """Whether this part of a line is written like a telephone number: in international form, in the
    groups of North America or of Chinese mobiles, with the leading 0 of a national number that
    exists in one of some countries, or in any form of such a country beside a word that says so."""
    number = line[start:end]
    digits = re.sub(r"\D", "", number)
    if not MIN_DIGITS <= len(digits) <= MAX_DIGITS or DATE.fullmatch(number):
        return False
    before, after = line[max(0, start - NEAR) : start], line[end : end + NEAR]
    # In a table of numbers there are no words to look for, again and again.
    words = before if LETTER.search(before) else ""
    if YEARS.fullmatch(number) or OTHER_LABEL.search(words):
        return False
    if NORTH_AMERICAN.fullmatch(number):
        return True
    if number.count("(") != number.count(")"):
        return False
    if SPACED.fullmatch(number):
        return True
    is_international = number.lstrip("(").startswith(("+", "00"))
    is_short = is_international or len(digits) <= MAX_LABELLED_DIGITS
    if is_short and "/" not in number and (LABEL.search(words) or LABEL_AFTER.match(after)):
        return True
    is_in_text = not OPERATOR.search(before) and TEXT_AFTER.match(after)
    if number.isdecimal() and not is_in_text:
        return False
    if CHINESE_MOBILE.fullmatch(number):
        return _is_valid(digits, "CN")
    if is_international:
        number_with_plus = "+" + digits.removeprefix("00")
        is_long = len(digits) >= (10 if number.endswith(digits) else 8)
        is_likely = number[0] == "+" and is_long and _is_possible(number_with_plus)
        return is_likely or _is_valid(number_with_plus, None)
    is_alone = not (re.search(r"\d $", before) or re.match(r" \d", after))
    is_after_word = number.startswith("0") and AFTER_WORD.search(words)
    speaks_of_people = PEOPLE_WORDS.search(words) or is_after_word
    if number.isdecimal() and not speaks_of_people:
        return False
    if LOCAL.fullmatch(number):
        return bool(NEAR_WORD.search(words))
    has_word = NEAR_WORD.search(words) or (speaks_of_people and NINE_DIGITS.fullmatch(number))
    return _is_national(number, bool(has_word), is_alone)


def _is_national(number: str, has_word: bool, is_alone: bool) -> bool:
    groups = re.findall(r"\d+", number)
    digits = "".join(groups)
    if digits.startswith("0") and 8 <= len(digits) <= 12:
        is_written = _is_grouped(groups) or re.fullmatch(r"0\d{9,10}", number)
        is_believed = is_alone and is_written and not POSTCODE.fullmatch(number)
        return bool(is_believed or has_word) and _exists(number, LEADING_ZERO)
    if is_alone and len(number) == 10 and number.isdecimal() and _exists(number, TEN_DIGITS):
        return True
    return has_word and not ARITHMETIC.fullmatch(number) and _exists(number, NO_ZERO)


def _is_grouped(groups: list[str]) -> bool:
    lengths = [len(group) for group in groups]
    is_long = sum(lengths) >= 9 or len(groups) >= 3
    is_prefixed = lengths[0] <= 5 or lengths == [6, 5]
    return 2 <= len(groups) <= 6 and min(lengths) >= 2 and is_long and is_prefixed


def _exists(number: str, regions: tuple[str, ...]) -> bool:
    return not number.startswith("0.") and any(_is_valid(number, region) for region in regions)


def _is_valid(number: str, region: str | None) -> bool:
    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(number, region))
    except phonenumbers.NumberParseException:
        return False


def _is_possible(number: str) -> bool:
    try:
        return phonenumbers.is_possible_number(phonenumbers.parse(number))
    except phonenumbers.NumberParseException:
        return False


PHONES = Recogniser("phone", "[0-9](?:[ \u00a0()./-]{0,3}[0-9]){6}", phone_spans)
