"""The user's own files: which ones a setting names, and the records in them.

The format follows from the suffix: .jsonl and .json (a record a line, or one array), .parquet,
.csv and .tsv with a header, .txt and .md (documents), .html and .htm (a page's main text), .warc
and .wet (web archives); each also with .gz or .zst behind it.
"""

from stages.core.sources.finding import left_out_remarks, source_files
from stages.core.sources.reading import read_records
from stages.core.sources.records import CUT_OFF, MAX_RECORD_BYTES, Record
from stages.core.sources.suffixes import DOCUMENT_FORMATS, file_format

__all__ = [
    "CUT_OFF",
    "DOCUMENT_FORMATS",
    "MAX_RECORD_BYTES",
    "Record",
    "file_format",
    "left_out_remarks",
    "read_records",
    "source_files",
]
