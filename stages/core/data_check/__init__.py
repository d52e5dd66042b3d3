"""What is wrong with the user's files, before anything is trained on them (``rlhf check``).

The records are read once, in blocks, in bounded memory; ``check_files`` returns what was found, and
``rendering`` shows it on a terminal or in Markdown.
"""

from stages.core.data_check.checking import check_files
from stages.core.data_check.findings import (
    CATALOGUE,
    FINE,
    UNUSABLE,
    WITH_FINDINGS,
    CheckReport,
    Example,
    FileSummary,
    Finding,
)
from stages.core.data_check.rendering import log_lines, markdown, table

__all__ = [
    "CATALOGUE",
    "FINE",
    "UNUSABLE",
    "WITH_FINDINGS",
    "CheckReport",
    "Example",
    "FileSummary",
    "Finding",
    "check_files",
    "log_lines",
    "markdown",
    "table",
]
