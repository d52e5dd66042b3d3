"""Secrets, and code and prose that speak of them."""

import pytest

from stages.core.personal_data import find, redact


def secrets(text):
    return [value for _, value in find(text, ("secret",))]


LETTERS = "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7"


@pytest.mark.parametrize(
    "token",
    [
        "AKIA" + "IOSFODNN7EXAMPLE",
        "ghp_" + "16C7e42F292c6912E7710c838347Ae178B4a",
        "glpat-" + LETTERS[:20],
        "xoxb-" + "123456789012-abcdefghijkl",
        "sk-proj-" + LETTERS,
        "hf_" + LETTERS + LETTERS[:7],
        "sk_live_" + LETTERS[:24],
        "AIza" + "SyD-9tSrke72PouQMnMX-a7eZSW0jkFMBWY",
        "123456789:" + (LETTERS + LETTERS)[:35],
        "eyJhbGciOiJIUzI1NiJ9." + "eyJzdWIiOiIxMjM0In0." + "dozjgNryP4J3jVmNHl0w5N",
    ],
)
def test_tokens_are_found_by_their_prefix(token):
    assert secrets(f"令牌{token}，") == [token]
    assert secrets(f"run with {token} please") == [token]


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("DB_PASSWORD=Tr0ub4dor&3", "Tr0ub4dor&3"),
        ('"password": "P@ssw0rd!"', "P@ssw0rd!"),
        ("密码：Abc@12345，", "Abc@12345"),
        ("my password is hunter22.", "hunter22"),
        ("Passwort: geheim123", "geheim123"),
        ("aws_secret_access_key = " + "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
         "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
        ("mysql://root:S3cr3tP4ss@10.0.0.5:3306/db", "S3cr3tP4ss"),
        ("Authorization: Bearer " + LETTERS, LETTERS),
        ("api_key: 'a8f5f167f44f4964e6c998dee827110c'", "a8f5f167f44f4964e6c998dee827110c"),
    ],
)  # fmt: skip
def test_passwords_are_found_without_their_names(text, secret):
    assert secrets(text) == [secret]
    assert redact(text, ("secret",), []) == text.replace(secret, "[SECRET]")


@pytest.mark.parametrize(
    "text",
    [
        'password: str, token = None, api_key=os.environ["API_KEY"], secret = get_secret("x")',
        "self.password = password; password=getpass.getpass(); PASSWORD_HASHERS = []",
        "The password is required. The secret is out. A bearer of bad news.",
        'password="changeme", "password": "********", passwd=xxxxxx, api_key: <your-key>',
        "max_tokens=2048 num_tokens: 1000000 token_type='Bearer' {{ csrf_token }}",
        "postgres://user:password@localhost/db https://user:${TOKEN}@host/",
        "commit 9fceb02d0ae598e95dc970b74767f19372d61af8",
        "sk-spinner sk-cube-grid, AKIA is a prefix, ghp_short",
    ],
)
def test_code_and_placeholders_are_left_alone(text):
    assert secrets(text) == []


def test_private_keys_are_found_across_lines():
    lines = [
        "-----BEGIN RSA PRIVATE KEY-----",
        "MIIEpAIBAAKCAQEA7bq",
        "-----END RSA PRIVATE KEY-----",
    ]
    assert redact("\n".join(["a", *lines, "b"]), ("secret",), []) == "a\n[SECRET]\nb"
    assert redact("\n".join(["a", *lines, "b"]), ("email",), []).count("PRIVATE") == 2
    cut_off = "\n".join(["a", lines[0], "MIIEpAIBAAKCAQEA7bq" * 3])
    assert redact(cut_off, ("secret",), []) == "a\n[SECRET]"
