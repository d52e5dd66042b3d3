"""Columns of texts are redacted as texts are one by one."""

import polars as pl
import pytest

from stages.core.personal_data import KINDS, redact, redact_series
from stages.core.personal_data.columns import may_hold

TEXTS = [
    "Nothing here, in 2026.\nNothing there.",
    "Write to ann@example.com\nor ring +44 20 7946 0958,\r\nthe host is 8.8.8.8",
    None,
    "",
    "a\n-----BEGIN PRIVATE KEY-----\nMIIEpAIBAAKCAQEA7bq\n-----END PRIVATE KEY-----\nb@example.com",
    "RSSMRA85T10A562S and AB123456C and ABCPE1234F and A123456(3)",
    "GB82 WEST 1234 5698 7654 32, 4111 1111 1111 1111\n身份证11010519491231002X电话13812345678",
    "password is hunter22x\nSSN 536904399",
]


@pytest.mark.parametrize("kinds", [KINDS, ("email",), ("phone", "secret"), ()])
def test_a_column_is_redacted_as_its_texts_are(kinds):
    texts = pl.Series("text", TEXTS)
    redacted, found = redact_series(texts, kinds)
    alone = [[] for _ in TEXTS]
    expected = [text and redact(text, kinds, alone[at]) for at, text in enumerate(TEXTS)]
    assert redacted.to_list() == expected
    assert redacted.name == "text"
    assert found.rows() == [(at, *item) for at, items in enumerate(alone) for item in items]
    assert found.columns == ["index", "kind", "value"]
    assert texts.to_list() == TEXTS


def test_what_holds_nothing_is_told_at_once():
    frame = pl.DataFrame({"text": TEXTS})
    assert frame.select(may_hold(pl.col("text"))).to_series().to_list() == [
        False, True, None, False, True, True, True, True,
    ]  # fmt: skip


def test_columns_of_one_type_come_out_of_empty_ones():
    redacted, found = redact_series(pl.Series("text", [], dtype=pl.String), KINDS)
    assert redacted.dtype == pl.String
    assert dict(found.schema) == {"index": pl.UInt32, "kind": pl.String, "value": pl.String}
