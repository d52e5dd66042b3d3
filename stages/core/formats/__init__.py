"""Known formats of demonstrations, preference pairs and prompts, recognised and converted."""

from stages.core.formats.recognition import convert, describe, gather, group_column, recognise

__all__ = ["convert", "describe", "gather", "group_column", "recognise"]
