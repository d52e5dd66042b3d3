"""The ways in which a stage ends without a result."""

import re

PASSWORD = re.compile(r"(?<=://)[^/\s'\"]+@")
"""User and password in an address."""
SECRET_PARAMETER = re.compile(
    r"(?<=[?&;])(access_token|auth_token|token|api_?key|password|pwd|sig|signature|secret"
    r"|x-amz-signature|x-goog-signature)=([^&;#\s'\"]*)",
    re.IGNORECASE,
)
"""Name and value of a secret among an address's parameters."""


class UserError(Exception):
    """Something that only the user can mend: bad data, a setting, a full disk.

    The message is one line that names the file and line, or the setting, and the cure. It is shown
    as it is, without a traceback, and is never retried. Exit code 2.
    """


class StageCrashedError(Exception):
    """A stage's process ended without a result: killed, out of memory, a defect. Worth a retry."""


class StageOutOfMemoryError(StageCrashedError):
    """The stage's process ran out of the device's or the machine's memory. Worth another try with a
    smaller micro batch."""


def without_passwords(text: str) -> str:
    """``text`` with the user and password left out of every address in it, and the secrets among
    its parameters."""
    return SECRET_PARAMETER.sub(r"\1=…", PASSWORD.sub("", text))
