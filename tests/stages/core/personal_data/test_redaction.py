"""Recognising personal data, and the digests by which it is found again."""

import time

import pytest

from stages.core.personal_data import KINDS, PersonalData, digest, find, redact


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("mail ann.o'x+y@mail.example.co.uk.", "mail ann.o'[EMAIL]."),
        ("<bob@example.com>, @app.route, a@b", "<[EMAIL]>, @app.route, a@b"),
        ("call (415) 555-2671 or 415-555-2671.", "call [PHONE] or [PHONE]."),
        ("+44 20 7946 0958, +1 415 555 2671!", "[PHONE], [PHONE]!"),
        ("ring 020 7946 0958 or 01 42 68 53 00", "ring [PHONE] or [PHONE]"),
        ("(1-800-273-8255)", "([PHONE])"),
        ("host 93.184.216.34:80", "host [IP_ADDRESS]:80"),
        ("2001:db8:85a3::8a2e:370:7334 and 203.0.113.7", "[IP_ADDRESS] and [IP_ADDRESS]"),
        ("card 4111 1111 1111 1111, 378282246310005", "card [CREDIT_CARD], [CREDIT_CARD]"),
    ],
)
def test_personal_data_is_redacted(text, redacted):
    found = []
    assert redact(text, KINDS, found) == redacted
    assert len(found) == redacted.count("[")
    assert find(text) == found


@pytest.mark.parametrize(
    "text",
    [
        "see sections 1.2.3.4 and 12.10.2.1",
        "127.0.0.1, 192.168.1.1, 10.0.0.200, 0.0.0.0, 300.1.2.3, 1.2.3.4.5",
        "at 12:30:45 std::vector a::b 1::2 aa:bb:cc:dd:ee:ff",
        "1914-1918, 2026-11-22, 22.11.2026, 01/02/2003, 1,000,000 and 12345678",
        "ISBN 978-0-226-75342-3, pi 3.141592653589793, 0.123 456 789",
        "12 345 678 people; 100 200 3000; 5 1/4-20; 1234567890123456",
        "4111111111111112 has a wrong check digit",
        "(9.4-1.44) 500-1200 145000000 #### 72",
    ],
)
def test_other_numbers_are_left_alone(text):
    assert redact(text, KINDS, []) == text
    assert find(text) == []


def test_only_the_kinds_asked_for_are_redacted():
    text, found = "ann@example.com, (415) 555-2671", []
    assert redact(text, ("phone",), found) == "ann@example.com, [PHONE]"
    assert found == [PersonalData("phone", "(415) 555-2671")]
    assert find(text, ()) == []


@pytest.mark.parametrize(
    ("kind", "spellings"),
    [
        ("email", ["Ann@Example.com", "ann@example.COM"]),
        ("phone", ["+44 20 7946 0958", "020 7946 0958", "(020) 7946-0958"]),
        ("phone", ["(415) 555-2671", "+1 415.555.2671"]),
        ("ip_address", ["2001:db8:0:0::7334", "2001:DB8::7334"]),
        ("credit_card", ["4111 1111 1111 1111", "4111-1111-1111-1111"]),
        ("phone", ["138 1234 5678", "+86 13812345678"]),
        ("iban", ["DE89 3704 0044 0532 0130 00", "de89370400440532013000"]),
        ("national_id", ["536-90-4399", "536904399"]),
    ],
)
def test_every_spelling_has_one_digest(kind, spellings):
    assert len({digest(PersonalData(kind, spelling)) for spelling in spellings}) == 1


def test_other_values_and_kinds_have_other_digests():
    values = [
        PersonalData("phone", "020 7946 0958"),
        PersonalData("phone", "020 7946 0959"),
        PersonalData("phone", "(212) 555-0147"),
        PersonalData("phone", "(312) 555-0147"),
        PersonalData("credit_card", "079460958"),
        PersonalData("email", "ann@example.com"),
    ]
    assert len(set(map(digest, values))) == 6
    assert all(len(digest(value)) == 64 for value in values)


@pytest.mark.parametrize(
    "unit",
    ["1 2 3 ", "eyJ", "aA", "a@", "GB82", "2001:", "(1", "key=", "password is ", "http://a:"],
)
def test_long_lines_of_nothing_take_no_time(unit):
    started = time.process_time()
    assert find(unit * (20_000 // len(unit))) == []
    assert time.process_time() - started < 2
