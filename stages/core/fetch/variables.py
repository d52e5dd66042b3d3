"""Secrets come from the environment when they are used, and leave no trace in messages."""

import os
import re
from collections.abc import Callable

from stages.core.config.sources import VARIABLE
from stages.core.errors import UserError, without_passwords


def expand(text: str, encode: Callable[[str], str] = str) -> str:
    """``text`` with the value of each ``$NAME`` in its place, as ``encode`` makes it.

    Raises:
        UserError: a variable is not set.
    """

    def value(found: re.Match[str]) -> str:
        name = found[1] or found[2]
        if not os.environ.get(name):
            raise UserError(f"{text}: the environment has no ${name}; export it before the run")
        return encode(os.environ[name])

    return VARIABLE.sub(value, text)


def without_secrets(message: str, text: str) -> str:
    """``message`` on one line, with ``$NAME`` for the value of each variable that ``text`` names,
    and without passwords in addresses."""
    for found in VARIABLE.finditer(text):
        if secret := os.environ.get(found[1] or found[2]):
            message = message.replace(secret, found[0])
    return without_passwords(" ".join(message.split()))
