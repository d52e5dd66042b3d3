"""Numbers of accounts and cards, and numbers with wrong check digits."""

import pytest

from stages.core.personal_data import find

KINDS = ("iban", "credit_card")


@pytest.mark.parametrize(
    ("text", "kind", "number"),
    [
        ("DE89 3704 0044 0532 0130 00 EUR", "iban", "DE89 3704 0044 0532 0130 00"),
        ("GB82WEST12345698765432", "iban", "GB82WEST12345698765432"),
        ("FR1420041010050500013M02606.", "iban", "FR1420041010050500013M02606"),
        ("de89370400440532013000", "iban", "de89370400440532013000"),
        ("卡号5555-5555-5555-4444。", "credit_card", "5555-5555-5555-4444"),
        ("30569309025904", "credit_card", "30569309025904"),
        ("6222020200112230", "credit_card", "6222020200112230"),
        ("debit card 6304000000000000", "credit_card", "6304000000000000"),
    ],
)
def test_numbers_with_right_check_digits_are_found(text, kind, number):
    assert find(text, KINDS) == [(kind, number)]


@pytest.mark.parametrize(
    "text",
    [
        "DE89 3704 0044 0532 0130 01",
        "DE8937040044053201300",
        "550e8400-e29b-41d4-a716-446655440000",
        "da39a3ee5e6b4b0d3255bfef95601890afd80709",
        "6304000000000000",  # as good as any number, without a word
        "4111,1111,1111,1111 and 4111111111111111.5 and 0.4111111111111111",
        "4111 1111 1111 1112",
    ],
)
def test_other_numbers_are_not(text):
    assert find(text, KINDS) == []
