"""E-mail addresses, and what else has an @."""

import pytest

from stages.core.personal_data import find


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("邮箱是zhangsan@qq.com，谢谢", "zhangsan@qq.com"),
        ("mailto:bob.smith+tag@sub.example.co.uk.", "bob.smith+tag@sub.example.co.uk"),
        ("<jürgen@müller.de>", "jürgen@müller.de"),
        ("a@b.co的邮箱", "a@b.co"),
    ],
)
def test_addresses_are_found_as_written(text, address):
    assert find(text, ("email",)) == [("email", address)]


@pytest.mark.parametrize(
    "text",
    [
        "user@localhost, root@127.0.0.1, a@b",
        '@property, @app.route("/"), "@babel/core": "^7.12.3", react@18.2.0',
        "git@github.com:owner/repository.git",
        "logo@2x.png, x = hidden@self.weight",
        "postgres://ann:password@db.example.com/x",
    ],
)
def test_other_uses_are_not(text):
    assert find(text, ("email",)) == []
