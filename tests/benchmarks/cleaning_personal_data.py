"""Made-up personal data with right check digits, what only looks like it, and sentences for both.

Telephone numbers are valid by ``phonenumbers`` and belong, by chance, to somebody or to nobody.
"""

import base64
import json
import string
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import phonenumbers
from phonenumbers import PhoneNumberFormat, PhoneNumberType

Random = np.random.Generator


class Value(NamedTuple):
    """Something put into a document that must be redacted, or must not."""

    kind: str
    """email, phone, ip_address, iban, credit_card, national_id, secret; decoy."""
    form: str
    text: str
    sentence: str


def personal(rng: Random) -> Value:
    """A value of a random kind, in a sentence."""
    kind = pick(rng, list(PERSONAL))
    form = pick(rng, list(PERSONAL[kind]))
    text = PERSONAL[kind][form](rng)
    is_chinese = form.startswith("CN") and rng.random() < 0.5
    sentence = pick(rng, CHINESE_SENTENCES[kind] if is_chinese else SENTENCES[kind])
    return Value(kind, form, text, sentence.format(text))


def decoy(rng: Random) -> Value:
    """What only looks like personal data, in a sentence."""
    form = pick(rng, list(DECOYS))
    make, sentences = DECOYS[form]
    text = make(rng)
    return Value("decoy", form, text, pick(rng, sentences).format(text))


def pick(rng: Random, items):
    return items[int(rng.integers(len(items)))]


def digits(rng: Random, count: int) -> str:
    return "".join(map(str, rng.integers(0, 10, count)))


def characters(
    rng: Random, count: int, alphabet: str = string.ascii_letters + string.digits
) -> str:
    return "".join(alphabet[number] for number in rng.integers(0, len(alphabet), count))


# ----------------------------------------------------------------------------- addresses, phones

NAMES = ["anna", "bjorn", "chen", "dimitri", "elena", "farid", "grace", "hiroshi", "ines", "jamal"]
SURNAMES = ["okafor", "lindgren", "wang", "petrov", "rossi", "haddad", "murphy", "tanaka", "silva"]
DOMAINS = ["gmail.com", "outlook.com", "uni-bonn.de", "mail.ox.ac.uk", "163.com", "orange.fr"]
DOMAINS += ["corp.acme-tools.io", "yandex.ru", "city.toronto.ca", "studio.design"]


def email(rng: Random) -> str:
    name, surname = pick(rng, NAMES), pick(rng, SURNAMES)
    local = pick(
        rng,
        [
            f"{name}.{surname}",
            f"{name}_{surname}{digits(rng, 2)}",
            f"{name[0]}{surname}",
            f"{name}+news",
            f"{surname.title()}.{name.title()}",
            f"{name}-{surname}",
            digits(rng, 9),
        ],
    )
    return f"{local}@{pick(rng, DOMAINS)}"


def phone(region: str, kind: int, form: int | None) -> Callable[[Random], str]:
    """A maker of valid numbers of a country, written internationally or as there."""

    def make(rng: Random) -> str:
        example = phonenumbers.example_number_for_type(region, kind)
        known = str(example.national_number)
        while True:
            number = phonenumbers.PhoneNumber(
                country_code=example.country_code,
                national_number=int(known[:-6] + digits(rng, 6)),
                italian_leading_zero=example.italian_leading_zero,
            )
            if phonenumbers.is_valid_number(number):
                break
        if form is not None:
            return phonenumbers.format_number(number, form)
        plain = str(number.national_number)
        separator = pick(rng, ["", "-", " "])
        return separator.join((plain[:3], plain[3:7], plain[7:]))

    return make


def north_american(rng: Random) -> str:
    area = pick(rng, [202, 212, 305, 312, 404, 415, 512, 604, 617, 702, 808, 916])
    exchange = rng.integers(220, 989)
    form = pick(rng, ["({}) {}-{}", "{}-{}-{}", "{}.{}.{}", "+1 {} {} {}", "1-{}-{}-{}"])
    return form.format(area, exchange, digits(rng, 4))


def ip_v4(rng: Random) -> str:
    first = pick(rng, [31, 46, 52, 77, 81, 93, 104, 130, 151, 185, 195, 212])
    rest = rng.integers(31, 250, 3)
    return ".".join(map(str, (first, *rest)))


def ip_v6(rng: Random) -> str:
    groups = [f"{number:x}" for number in rng.integers(4096, 65535, 5)]
    start = pick(rng, ["2a00", "2607", "2400", "2003"])
    return (
        f"{start}:{':'.join(groups[:2])}::{groups[2]}"
        if rng.random() < 0.5
        else ":".join((start, *groups, "1", "42"))
    )


# ------------------------------------------------------------------------------- numbers of money


def luhn(payload: str) -> str:
    """The digits with their check digit."""
    total = 0
    for place, digit in enumerate(reversed(payload)):
        doubled = int(digit) * (2 - place % 2)
        total += doubled // 10 + doubled % 10
    return payload + str(-total % 10)


def card(prefixes: list[str], length: int) -> Callable[[Random], str]:
    def make(rng: Random) -> str:
        prefix = pick(rng, prefixes)
        number = luhn(prefix + digits(rng, length - 1 - len(prefix)))
        separator = pick(rng, ["", " ", "-"])
        if length == 15:
            return separator.join((number[:4], number[4:10], number[10:]))
        return separator.join(number[start : start + 4] for start in range(0, length, 4))

    return make


def iban(country: str, structure: str) -> Callable[[Random], str]:
    """A maker of account numbers; of the structure, d stands for a digit and A for a letter."""

    def make(rng: Random) -> str:
        account = "".join(
            digits(rng, 1) if place == "d" else characters(rng, 1, string.ascii_uppercase)
            for place in structure
        )
        number = int("".join(str(int(letter, 36)) for letter in f"{account}{country}00"))
        text = f"{country}{98 - number % 97:02d}{account}"
        if rng.random() < 0.5:
            return text
        return " ".join(text[start : start + 4] for start in range(0, len(text), 4))

    return make


# ------------------------------------------------------------------------------------ identities


def chinese_id(rng: Random) -> str:
    """GB 11643-1999: region, date of birth, serial number, check character."""
    region = pick(rng, ["110105", "310104", "440305", "510107", "330106", "420111"])
    born = f"{rng.integers(1950, 2005)}{rng.integers(1, 13):02d}{rng.integers(1, 29):02d}"
    body = region + born + digits(rng, 3)
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    total = sum(int(digit) * weight for digit, weight in zip(body, weights, strict=True))
    return body + "10X98765432"[total % 11]


def spanish_id(rng: Random) -> str:
    number = int(rng.integers(10_000_000, 99_999_999))
    return f"{number}{pick(rng, ['', '-'])}{'TRWAGMYFPDXBNJZSQVHLCKE'[number % 23]}"


def brazilian_id(rng: Random) -> str:
    body = [int(digit) for digit in digits(rng, 9)]
    for _ in range(2):
        weights = range(len(body) + 1, 1, -1)
        rest = sum(digit * weight for digit, weight in zip(body, weights, strict=True)) % 11
        body.append(0 if rest < 2 else 11 - rest)
    text = "".join(map(str, body))
    return f"{text[:3]}.{text[3:6]}.{text[6:9]}-{text[9:]}"


def french_id(rng: Random) -> str:
    """NIR: sex, year, month, department, commune, order, key."""
    parts = [rng.integers(1, 3), rng.integers(40, 99), rng.integers(1, 13), rng.integers(10, 90)]
    body = f"{parts[0]}{parts[1]}{parts[2]:02d}{parts[3]}{rng.integers(1, 900):03d}{digits(rng, 3)}"
    groups = [body[0], body[1:3], body[3:5], body[5:7], body[7:10], body[10:]]
    return pick(rng, ["", " "]).join((*groups, f"{97 - int(body) % 97:02d}"))


def american_id(rng: Random) -> str:
    return f"{rng.integers(101, 660)}-{rng.integers(11, 99)}-{rng.integers(1001, 9999)}"


# --------------------------------------------------------------------------------------- secrets


def private_key(rng: Random) -> str:
    lines = "\n".join(characters(rng, 64, string.ascii_letters + "+/") for _ in range(4))
    name = pick(rng, ["RSA ", "EC ", ""])
    return f"-----BEGIN {name}PRIVATE KEY-----\n{lines}\n-----END {name}PRIVATE KEY-----"


def token(prefix: str, count: int, alphabet: str = string.ascii_letters + string.digits):
    return lambda rng: prefix + characters(rng, count, alphabet)


def web_token(rng: Random) -> str:
    """A JSON Web Token: two objects and a signature, in base64url."""
    claims = {"sub": digits(rng, 10), "name": pick(rng, NAMES), "iat": int(digits(rng, 9))}
    parts = [json.dumps(part).encode() for part in ({"alg": "HS256", "typ": "JWT"}, claims)]
    encoded = [base64.urlsafe_b64encode(part) for part in (*parts, rng.bytes(32))]
    return ".".join(part.decode().rstrip("=") for part in encoded)


BASE32 = string.ascii_uppercase + "234567"
MOBILE, FIXED = PhoneNumberType.MOBILE, PhoneNumberType.FIXED_LINE
INTERNATIONAL, NATIONAL = PhoneNumberFormat.INTERNATIONAL, PhoneNumberFormat.NATIONAL

PERSONAL: dict[str, dict[str, Callable[[Random], str]]] = {
    "email": {"address": email},
    "phone": {
        "US": north_american,
        "DE international": phone("DE", MOBILE, INTERNATIONAL),
        "GB international": phone("GB", MOBILE, INTERNATIONAL),
        "FR E.164": phone("FR", MOBILE, PhoneNumberFormat.E164),
        "IN international": phone("IN", MOBILE, INTERNATIONAL),
        "BR international": phone("BR", MOBILE, INTERNATIONAL),
        "GB national": phone("GB", FIXED, NATIONAL),
        "FR national": phone("FR", FIXED, NATIONAL),
        "DE national": phone("DE", FIXED, NATIONAL),
        "CN mobile": phone("CN", MOBILE, None),
        "CN international": phone("CN", MOBILE, INTERNATIONAL),
        "CN landline": phone("CN", FIXED, NATIONAL),
    },
    "ip_address": {"v4": ip_v4, "v6": ip_v6},
    "iban": {
        "DE": iban("DE", "d" * 18),
        "GB": iban("GB", "AAAA" + "d" * 14),
        "NL": iban("NL", "AAAA" + "d" * 10),
        "ES": iban("ES", "d" * 20),
    },
    "credit_card": {
        "Visa": card(["4"], 16),
        "Mastercard": card(["51", "52", "53", "54", "55"], 16),
        "American Express": card(["34", "37"], 15),
    },
    "national_id": {
        "CN": chinese_id,
        "ES": spanish_id,
        "BR": brazilian_id,
        "FR": french_id,
        "US": american_id,
    },
    "secret": {
        "AWS": token("AKIA", 16, BASE32),
        "GitHub": token("ghp_", 36),
        "OpenAI": token("sk-proj-", 48),
        "Slack": lambda rng: f"xoxb-{digits(rng, 12)}-{digits(rng, 12)}-{characters(rng, 24)}",
        "Google": token("AIza", 35),
        "JWT": web_token,
        "private key": private_key,
    },
}

SENTENCES: dict[str, list[str]] = {
    "email": [
        "Write to {} before Friday.",
        "Questions go to <{}>, please.",
        "He signed it with his own address ({}).",
        "E-mail: {}",
    ],
    "phone": [
        "You can reach her on {} after six.",
        "Tel. {}",
        "Call me at {}.",
        "My new number is {}, by the way.",
        "Fax: {}",
    ],
    "ip_address": [
        "The last login came from {}.",
        "Somebody at {} had written the comment.",
        "Client address: {}",
    ],
    "iban": [
        "Please pay into {} by the end of the month.",
        "IBAN: {}",
        "Her account, {}, is empty.",
    ],
    "credit_card": [
        "I paid with my card, {}, and nothing came.",
        "Card number: {}",
        "The number on it was {}.",
    ],
    "national_id": [
        "The form asked for his identity number, {}, twice.",
        "ID: {}",
        "Her national identity number is {}.",
    ],
    "secret": [
        "He had left the key in the file: {}",
        "token = {}",
        "Use this until tomorrow: {}",
    ],
}
CHINESE_SENTENCES = {
    "phone": ["请拨打电话{}联系我。", "我的手机号是{}，晚上再打。", "电话：{}"],
    "national_id": ["他的身份证号码是{}。", "身份证：{}"],
}

# ---------------------------------------------------------------------------------------- decoys


def wrong_card(rng: Random) -> str:
    right = card(["4", "52"], 16)(rng)
    return right[:-1] + str((int(right[-1]) + int(rng.integers(1, 10))) % 10)


def wrong_iban(rng: Random) -> str:
    right = iban("DE", "d" * 18)(rng)
    return right[:-1] + str((int(right[-1]) + int(rng.integers(1, 10))) % 10)


def uuid(rng: Random) -> str:
    text = characters(rng, 32, "0123456789abcdef")
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def numbers(form: str, *limits: tuple[int, int]) -> Callable[[Random], str]:
    return lambda rng: form.format(*(int(rng.integers(*limit)) for limit in limits))


DECOYS: dict[str, tuple[Callable[[Random], str], list[str]]] = {
    "card with a wrong check digit": (wrong_card, ["The specimen bore the number {}."]),
    "IBAN with a wrong check digit": (wrong_iban, ["The example {} has no such account."]),
    "private address": (
        lambda rng: pick(rng, ["192.168.{}.{}", "10.0.{}.{}"]).format(*rng.integers(2, 250, 2)),
        ["The router answers at {}.", "Bind it to {} on the inner network."],
    ),
    "local address": (lambda rng: "127.0.0.1", ["It listens on {} alone."]),
    "version": (
        numbers("{}.{}.{}.{}", (1, 20), (0, 20), (0, 30), (0, 9)),
        ["That was mended in version {}.", "See section {} of the standard."],
    ),
    "time": (
        numbers("2024-0{}-1{} 1{}:{}:{}", (1, 9), (0, 9), (0, 9), (10, 59), (10, 59)),
        ["It happened at {}.", "The entry of {} says nothing."],
    ),
    "date range": (numbers("{}-{}", (1801, 1950), (1951, 2020)), ["The house stood empty, {}."]),
    "amount": (numbers("{},{},{}", (1, 999), (100, 999), (100, 999)), ["It cost {} in all."]),
    "decimals": (lambda rng: f"{rng.integers(0, 9)}.{digits(rng, 15)}", ["The ratio came to {}."]),
    "ISBN": (
        lambda rng: f"978-3-{digits(rng, 2)}-{digits(rng, 6)}-{digits(rng, 1)}",
        ["The book (ISBN {}) is out of print."],
    ),
    "UUID": (uuid, ["The record {} was not found.", "Its identifier is {}."]),
    "commit": (token("", 40, "0123456789abcdef"), ["It came with commit {}."]),
    "order": (numbers("{}-{}", (20200000, 20241231), (1000, 9999)), ["Your order {} is ready."]),
    "pages": (numbers("{}-{}", (1001, 1500), (1501, 2000)), ["See volume 12, pp. {}."]),
    "coordinates": (
        lambda rng: f"{rng.uniform(-80, 80):.4f}, {rng.uniform(-170, 170):.4f}",
        ["The spot lies at {}."],
    ),
    "size": (numbers("{}x{}", (640, 4000), (480, 3000)), ["The picture has {} points."]),
    "package": (
        lambda rng: f"{pick(rng, ['left-pad', 'lodash', 'react'])}@{rng.integers(1, 18)}.3.0",
        ["The build needs {} or newer."],
    ),
    "handle": (
        lambda rng: f"@{pick(rng, NAMES)}_{pick(rng, SURNAMES)}",
        ["{} wrote that it rains."],
    ),
    "number of seconds": (numbers("17{}", (10000000, 99999999)), ["The clock showed {} seconds."]),
    "serial number": (
        lambda rng: f"SN-{digits(rng, 4)}-{digits(rng, 4)}",
        ["The machine had the serial number {}."],
    ),
}
