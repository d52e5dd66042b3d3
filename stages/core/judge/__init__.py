"""A language model behind an OpenAI-compatible endpoint as judge of two replies."""

from stages.core.judge.pairwise import Judgements, judge

__all__ = ["Judgements", "judge"]
