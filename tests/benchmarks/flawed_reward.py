"""A reward with a flaw, for ``ppo_guard.py``: it pays for length."""


def words(prompts: list[str], completions: list[str]) -> list[float]:
    """A fifth of a point a word, up to 40 words."""
    return [min(len(text.split()), 40) / 5 for text in completions]
