"""Telephone numbers in the forms of many countries, and numbers that look like them."""

import time

import pytest

from stages.core.personal_data import find


def phones(text):
    return [value for kind, value in find(text, ("phone",))]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("我的手机号是13812345678，请联系我。", "13812345678"),
        ("手机：138-1234-5678", "138-1234-5678"),
        ("联系电话：+86 138 1234 5678", "+86 138 1234 5678"),
        ("0086-138-1234-5678", "0086-138-1234-5678"),
        ("座机010-62345678转801", "010-62345678"),
        ("(0571)87654321", "(0571)87654321"),
        ("电话：400-820-8820", "400-820-8820"),
        ("tel +49 (0)30 901820", "+49 (0)30 901820"),
        ("Tel. 030/901820", "030/901820"),
        ("(+44) 20 7946 0958", "(+44) 20 7946 0958"),
        ("06.12.34.56.78", "06.12.34.56.78"),
        ("Mon numéro de téléphone est 0612345678", "0612345678"),
        ("Llámame al 91 123 45 67", "91 123 45 67"),
        ("il mio cellulare è 333 1234567", "333 1234567"),
        ("07911 123456", "07911 123456"),
        ("098765 43210", "098765 43210"),
        ("+55 11 98765-4321", "+55 11 98765-4321"),
        ("03-1234-5678", "03-1234-5678"),
        ("Phone=2125551234", "2125551234"),
        ("555.123.4567x89", "555.123.4567x89"),
        ("+1 (212) 555-1234 ext. 45", "+1 (212) 555-1234 ext. 45"),
        ("ring 020 7946 0958 2026", "020 7946 0958"),
        ("Ann,020 7946 0958,UK", "020 7946 0958"),
        ("18717205847-Office", "18717205847"),
        ("Call me at 555-0123", "555-0123"),
    ],
)
def test_numbers_are_found_as_written(text, number):
    assert phones(text) == [number]


@pytest.mark.parametrize(
    "text",
    [
        "Boston, MA 02110-1301 USA",
        "Phys. Rev. E 74, 036111 (2006)",
        "00 01 02 03 04 05 06 07 08 09",
        '{"id": 13812345678}, x = 13812345678, id: 12345678901',
        "订单号13812345678, merge 0650614982",
        "his 3.141592654, my 14400-10800 and 2400/200",
        "1 000 000 000; 1,234,567; -122.4194155 37.774929",
        "20240115T103045Z, 2024-01-15 10:30, 15/01/2024, 2019-2020",
        "call 10000 users 3 times, or 911",
        "1700000000 1700000000000 4294967295",
        "1.3.6.1.4.1.311 and 2.5.29.15",
        "https://example.com/a/1234567890/b?n=13812345678",
    ],
)
def test_other_numbers_are_not(text):
    assert phones(text) == []


def test_many_numbers_in_a_line_take_no_time():
    assert phones("12 " * 5_000) == []
    assert phones("1234567" * 5_000) == []


def test_a_table_of_numbers_takes_no_longer_than_it_must():
    line = "0.123 4.567 8.901 " * 10_000
    started = time.process_time()
    assert phones(line) == []
    assert time.process_time() - started < 2  # .5 s; 3 s where words are looked for among numbers
