"""Personal data in text: found by patterns, then checked by what such numbers must satisfy.

A module a kind; ``KINDS`` names them. Presidio's recognisers check the same way, but take 7 seconds
to import, torch and spaCy among it, and know no Chinese numbers and few secrets.
"""

from stages.core.personal_data.columns import redact_series
from stages.core.personal_data.digests import digest
from stages.core.personal_data.redaction import KINDS, PersonalData, find, redact

__all__ = ["KINDS", "PersonalData", "digest", "find", "redact", "redact_series"]
