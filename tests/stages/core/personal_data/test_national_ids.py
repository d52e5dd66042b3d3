"""Numbers of identity: by their form, or by the word beside them."""

import pytest

from stages.core.personal_data import find


def ids(text):
    return [value for _, value in find(text, ("national_id",))]


@pytest.mark.parametrize(
    "number",
    [
        "11010519491231002X",  # China
        "536-90-4399",  # United States
        "AB 12 34 56 C",  # Britain
        "12345678Z",  # Spain
        "X1234567L",
        "RSSMRA85T10A562S",  # Italy
        "2 55 08 14 168 025 38",  # France
        "390.533.447-05",  # Brazil
        "2341 2341 2346",  # India
        "ABCPE1234F",
        "811228-9874",  # Sweden
        "131052-308T",  # Finland
        "85.07.30-033.28",  # Belgium
        "756.9217.0769.85",  # Switzerland
        "S1234567D",  # Singapore
        "A123456(3)",  # Hong Kong
        "A123456789",  # Taiwan
    ],
)
def test_forms_that_nothing_else_has_are_found_anywhere(number):
    assert ids(f"it says {number}, he read") == [number]
    assert ids(f"身份{number}。") == [number]


@pytest.mark.parametrize(
    ("word", "number"),
    [
        ("SSN", "536904399"),
        ("social security", "987-65-4321"),
        ("NHS", "943 476 5919"),
        ("INSEE", "255081416802538"),
        ("Steuer-ID", "86095742719"),
        ("CPF", "39053344705"),
        ("Aadhaar", "234123412346"),
        ("PESEL", "44051401359"),
        ("BSN", "111222333"),
        ("TFN", "123 456 782"),
        ("身份证", "110105491231002"),
    ],
)
def test_common_forms_are_found_beside_a_word(word, number):
    assert ids(f"{word}: {number}") == [number]
    assert ids(f"{number} ({word})") == [number]
    assert ids(f"the figure {number}") == []
    assert ids(f"{word} {'and so on ' * 20}{number}") == []


@pytest.mark.parametrize(
    "text",
    [
        "11010519491231002A, 110105194912310021, 11010519491331002X",
        "000-12-3456, 666-12-3456, 536-00-4399, 1536-90-4399",
        "GB123456A, 12345678A, X1234567A, S1234567A, A123456(4), A123456788",
        "BSN 111222334, NHS 943 476 5918",
        "ABCDE1234F, 390.533.447-06, 2341 2341 2347",
    ],
)
def test_wrong_check_digits_are_left_alone(text):
    assert ids(text) == []
