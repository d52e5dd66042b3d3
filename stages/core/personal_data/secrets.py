"""Secrets: keys and tokens of services, private keys, passwords.

Tokens of services are known by their prefixes. A password is what is assigned to a word for it, and
is told from code and placeholders by what it is made of.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator

from stages.core.personal_data.recogniser import LETTERS, WORD, Recogniser, Span, without_overlaps

PRIVATE_KEY = re.compile(
    r"-----BEGIN (?:[A-Z]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----"
    r"(?:(?:(?!-----)[\s\S]){0,20000}?-----END (?:[A-Z]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----"
    r"|(?:\s*[A-Za-z0-9+/=]{16,76}(?=\s|$))*)"
)
"""In PEM or PGP armour, with its end or cut off."""

TOKENS = (
    r"(?:AKIA|ASIA|AROA|AIDA|AGPA|ANPA|ABIA|ACCA|A3T[A-Z0-9])[A-Z0-9]{16}",  # AWS
    r"gh[pousr]_[A-Za-z0-9_]{30,}", r"github_pat_[A-Za-z0-9_]{22,}",
    r"gl(?:pat|ptt|rt|dt|ft|soat|cbt|agent|imt|oas|ffct)-[A-Za-z0-9_-]{20,}",
    r"GR1348941[A-Za-z0-9_-]{20,}",  # GitLab
    r"xox[abeoprs]-[A-Za-z0-9-]{10,}", r"xapp-\d-[A-Za-z0-9-]{20,}",  # Slack
    r"https://hooks\.slack\.com/services/[A-Za-z0-9_/]{20,}",
    r"https?://api\.softlayer\.com/soap/v3(?:\.1)?/[a-z0-9]{64}",
    r"https://discord(?:app)?\.com/api/webhooks/\d+/[A-Za-z0-9_-]{30,}",
    r"sk-(?:proj|svcacct|admin|ant|or)-[A-Za-z0-9_-]{16,}", r"sk-[A-Za-z0-9]{20,}",  # OpenAI
    r"sk-[A-Za-z0-9_-]*T3BlbkFJ[A-Za-z0-9_-]{10,}", r"AKC[A-Za-z0-9]{10,}",  # OpenAI, Artifactory
    r"hf_[A-Za-z0-9]{30,}", r"(?:api_org|r8)_[A-Za-z0-9]{30,}",  # Hugging Face, Replicate
    r"[spr]k_(?:live|test)_[A-Za-z0-9]{10,}", r"whsec_[A-Za-z0-9+/=]{20,}",  # Stripe
    r"AIza[A-Za-z0-9_-]{35}", r"ya29\.[A-Za-z0-9_-]{20,}", r"GOCSPX-[A-Za-z0-9_-]{20,}",  # Google
    r"npm_[A-Za-z0-9]{36}", r"pypi-AgE[A-Za-z0-9_-]{40,}", r"rubygems_[a-f0-9]{48}",
    r"do[opr]_v1_[a-f0-9]{64}", r"dapi[a-f0-9]{32}", r"dckr_pat_[A-Za-z0-9_-]{20,}",
    r"SG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{16,64}", r"key-[a-f0-9]{32}",  # SendGrid, Mailgun
    r"sq0(?:atp|csp)-[A-Za-z0-9_-]{22,}",  # Twilio, Square
    r"shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}", r"EAA[A-Za-z0-9]{40,}",  # Shopify, Facebook
    r"glsa_[A-Za-z0-9]{32}_[a-f0-9]{8}", r"figd_[A-Za-z0-9_-]{30,}", r"lin_api_[A-Za-z0-9]{32,}",
    r"hv[sb]\.[A-Za-z0-9_-]{20,}", r"AGE-SECRET-KEY-1[A-Z0-9]{50,}", r"NRAK-[A-Z0-9]{27}",
    r"gsk_[A-Za-z0-9]{40,}", r"xai-[A-Za-z0-9]{40,}", r"tvly-[A-Za-z0-9-]{20,}",
    r"pplx-[A-Za-z0-9]{40,}", r"ATATT3[A-Za-z0-9_=-]{40,}", r"PMAK-[a-f0-9]{24}-[a-f0-9]{34}",
    r"eyJ[A-Za-z0-9_=-]{8,}\.[A-Za-z0-9_=-]{8,}(?:\.[A-Za-z0-9_.+/=-]{4,})?",  # JSON Web Tokens
)  # fmt: skip
"""By their prefixes, as the services document them."""
TOKEN = re.compile(rf"(?<![A-Za-z0-9_])(?:{'|'.join(TOKENS)})")
UNPREFIXED = {
    "[0-9]{8}:[A-Za-z0-9_-]{8}": r"\d{8,10}:[A-Za-z0-9_-]{35}(?![A-Za-z0-9_-])",  # Telegram
    r"\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{8}":  # Discord
        r"[MNO][A-Za-z0-9_-]{23,25}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,38}",
    "(?:AC|SK)[a-z0-9]{8}": r"(?:AC|SK)[a-z0-9]{32}(?![A-Za-z0-9])",  # Twilio
    "[0-9a-z]-us[0-9]": r"[0-9a-z]{32}-us\d{1,2}(?![A-Za-z0-9])",  # Mailchimp
    "AP[0-9A-F][A-Za-z0-9]{12}":  # Artifactory
        r"AP[0-9A-F](?=(?:[A-Za-z]*\d){3})[A-Za-z0-9]{20,}",
}  # fmt: skip
"""Tokens with nothing to know them by but their form: a part that is quickly searched for, and the
whole."""
UNPREFIXED_TOKEN = re.compile(rf"(?<![A-Za-z0-9_])(?:{'|'.join(UNPREFIXED.values())})")

NAMES = (
    r"(?:[a-z]{1,20}[_-]?)?(?:password|passwd|passphrase|pwd|api[_-]?(?:pass|pw|key|token))"
    r"|pass(?:code)?|psw"
    r"|(?:client|app)?[_-]?secret|secret[_-]?access"
    r"|(?:secret|private|encryption|signing|account|shared|master)[_ -]?(?:access[_-]?)?key"
    r"|(?:api|access|auth(?:orization)?)[_ -]?(?:key|token|secret)"
    r"|(?:refresh|bearer|session|bot|id)[_-]?token|token|credentials?"
    r"|passwort|kennwort|contraseña|mot de passe|senha|wachtwoord|hasło|пароль"
)
KEY_NAMES = r"[A-Za-z]{1,20}[_-]?key"
"""Of keys of any kind, most of them no secrets: their values must look random."""
CHINESE_NAMES = "密码|密碼|口令|密钥|令牌|パスワード|비밀번호"
# Words may stand before the name (DB_PASSWORD, x-api-key), not after it (max_tokens, token_count).
ASSIGNED = re.compile(
    rf"(?:(?<![{LETTERS}])|(?<=_)|(?<=[a-z])(?=[A-Z]))(?:(?i:{NAMES}|(?P<key>{KEY_NAMES}))"
    rf"|{CHINESE_NAMES})(?![{WORD}])"
    r"(?:[\"'\])]{0,3}[ \t]*(?::=|=>|==|::|[=:：])|\s{1,2}(?i:is|was|ist|es|est)(?=\s)|是|为"
    r"|[\"'\])]{0,3}(?P<none>[ \t]))[ \t]*"
    r"(?:[\"'`](?P<quoted>[^\"'`\s]{6,200})[\"'`]"
    r"|(?P<bare>[^\s\"'`<>(){}\[\],;|，。；]{6,200}+)(?![(\[]))"
)
USER_AND_PASSWORD = re.compile(
    r"[A-Za-z][A-Za-z0-9+.-]{1,20}://[^\s:/@\"']{0,120}:(?P<password>[^\s/@\"']{3,100})@(?=[\w\[$])"
)
AUTHORIZATION = re.compile(
    r"(?i:bearer|basic|authorization: token)\s+(?P<credentials>[A-Za-z0-9._~+/-]{16,}={0,2})"
)

PLACEHOLDER = re.compile(
    r"(?i:.*(?:your|example_|changeme|change_me|placeholder|redacted|insert|replace|dummy_)"
    r"|pass(?:word|wd|phrase)?|pwd|secret|token|key|none|null|true|false|undefined|string"
    r"|(.)\1*|[*x.•_-]+|user(?:name)?|mysecret|test)|[$%<{@].*|.*(?:\$\{|\{\{|\}\}|%\(|\(\)).*"
)
"""Stands for a secret, or is taken from a variable."""
CODE = re.compile(
    r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+(?:\(.*)?|[A-Za-z_]+\w*\(.*|[A-Z]+(?:_[A-Z0-9]+)+|/.*"
)
MIN_ENTROPY = 2.2
"""Bits a character; of 8 characters, about five are different."""
RANDOM_ENTROPY = 3.2
LONGER_THAN_WORDS = 20


def secret_spans(line: str) -> Iterator[Span]:
    """Tokens, and the values (without the names) of passwords, in the order of the line."""
    found = [match.span() for match in PRIVATE_KEY.finditer(line)]
    found += [match.span() for match in TOKEN.finditer(line)]
    for match in USER_AND_PASSWORD.finditer(line):
        if not PLACEHOLDER.fullmatch(match["password"]):
            found.append(match.span("password"))
    for match in AUTHORIZATION.finditer(line):
        if is_random(match["credentials"]):
            found.append(match.span("credentials"))
    for match in ASSIGNED.finditer(line):
        group = "quoted" if match["quoted"] else "bare"
        start = match.start(group)
        value = match[group].rstrip(".:!?") if group == "bare" else match[group]
        is_doubtful = match["none"] or match["key"]
        if is_doubtful and (len(value) < LONGER_THAN_WORDS or not is_random(value)):
            continue
        if is_password(value, is_quoted=group == "quoted"):
            found.append((start, start + len(value)))
    return without_overlaps(found)


def unprefixed_spans(line: str) -> Iterator[Span]:
    """Tokens without a prefix."""
    return (match.span() for match in UNPREFIXED_TOKEN.finditer(line))


def is_password(value: str, is_quoted: bool) -> bool:
    """Whether what is assigned to a password looks like one: not like a placeholder, a variable or
    a word, and with digits where no quotes mark it."""
    if len(value) < 6 or PLACEHOLDER.fullmatch(value) or entropy(value) < MIN_ENTROPY:
        return False
    has_digit = any(sign.isdigit() for sign in value)
    has_letter = any(sign.isalpha() for sign in value)
    if is_quoted:
        is_words = re.fullmatch(r"[A-Za-z_./:-]+", value)
        is_run = value.isalpha() and len(value) >= LONGER_THAN_WORDS
        return has_digit or not is_words or (is_run and entropy(value) > RANDOM_ENTROPY)
    return has_digit and has_letter and not CODE.fullmatch(value)


def is_random(value: str) -> bool:
    """Whether a run of characters holds more than a word or a path does."""
    return any(sign.isdigit() for sign in value) and entropy(value) > RANDOM_ENTROPY


def entropy(value: str) -> float:
    """Of the characters in the value, in bits a character."""
    counts = Counter(value).values()
    return -sum(count / len(value) * math.log2(count / len(value)) for count in counts)


_ASSIGNS = (
    r"[\x22')\]]*[ \t]*(?::=|[=:：是为]|(?i:is|was|ist|es|est)[ \t]"
    r"|[ \t][\x22']?[A-Za-z0-9]*[0-9][A-Za-z])"
)


def _start(token: str) -> str:
    """A token up to its first counted part: Rust's ``regex`` is slow where it has much to count."""
    return token.partition("{")[0].replace(r"\d", "[0-9]") + "{4}"


SECRETS = Recogniser(
    "secret",
    "|".join(
        (
            rf"(?:(?i:pass(?:word|wd|phrase|code)?|pwd|apipass|psw|secret|key|token|credentials?|wort"
            rf"|contraseña|mot de passe|senha|hasło|пароль)|{CHINESE_NAMES}){_ASSIGNS}",
            r"PRIVATE KEY|(?i:bearer|basic|token)[ \t]+[A-Za-z0-9._~+/-]{12}",
            r"//[^ \t\n/@]+:[^ \t\n/@]+@",
            *map(_start, TOKENS),
        )
    ),
    secret_spans,
)
UNPREFIXED_SECRETS = Recogniser("secret", "|".join(UNPREFIXED), unprefixed_spans)
