"""Digests by which personal data is found again, however it is spelt."""

import hashlib
import ipaddress
import re

from stages.core.personal_data.phones import CHINESE_MOBILE
from stages.core.personal_data.redaction import PersonalData

PHONE_DIGITS = 9
"""So many digits at the end of a telephone number are the same with and without the country's or
the trunk prefix."""
NORTH_AMERICAN = re.compile(r"1?([2-9]\d\d[2-9]\d{6})")
"""Numbers there have ten digits, the area code among them, and no trunk prefix."""


def digest(found: PersonalData) -> str:
    """SHA-256 of the value in one spelling: another spelling of the same address or number has the
    same digest.

    It keeps the value out of sight and no more: whoever has the digests finds telephone numbers,
    IP addresses and cards by trying them all, under any hash or salt kept beside them.
    """
    return hashlib.sha256(f"{found.kind}:{_one_spelling(found)}".encode()).hexdigest()


def _one_spelling(found: PersonalData) -> str:
    if found.kind == "ip_address":
        return ipaddress.ip_address(found.value).compressed
    if found.kind == "email":
        return found.value.casefold()
    if found.kind == "secret":
        return found.value
    if found.kind in ("iban", "national_id"):
        return re.sub(r"[\W_]", "", found.value).upper()
    digits = re.sub(r"\D", "", found.value)
    if found.kind != "phone":
        return digits
    is_chinese = CHINESE_MOBILE.fullmatch(found.value)
    north_american = None if is_chinese else NORTH_AMERICAN.fullmatch(digits)
    return north_american[1] if north_american else digits[-PHONE_DIGITS:]
