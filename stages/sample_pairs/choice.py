"""Which candidate pairs are worth a person's time.

disagreement: the pairs about whose margin two reward models differ most, the disagreement of an
ensemble of two (Christiano et al., 2017, arXiv:1706.03741). margin: the pairs whose replies the
reward model scores most alike, uncertainty sampling (Lewis & Gale, 1994, arXiv:cmp-lg/9407020).
"""

import random
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from stages.core.feedback.pairs import CandidatePair
from stages.core.schemas import prompt_key

Choice = Literal["disagreement", "margin", "random"]

MAX_PAIRS_A_PROMPT = 3
"""More pairs of one prompt teach little that the others do not."""


def possible_choice(wanted: Choice, num_reward_models: int) -> Choice:
    """``wanted``, or what so many reward models can tell of it: without a second one nothing
    disagrees, without any there are no margins."""
    if num_reward_models == 0:
        return "random"
    return "margin" if wanted == "disagreement" and num_reward_models == 1 else wanted


def choose(
    candidates: Sequence[CandidatePair], count: int, choice: Choice, seed: int
) -> list[CandidatePair]:
    """At most ``count`` of the candidates, the most worthwhile first.

    One pair a prompt as long as there are prompts; then the second best of each, and so on up to
    ``MAX_PAIRS_A_PROMPT``. Equal worth is decided by the seed, whatever the order of candidates.
    """

    def place(pair: CandidatePair) -> tuple[float, float]:
        return -worth(pair, choice), random.Random(f"{seed}/{pair.pair_id}").random()

    seen: Counter[str] = Counter()
    rounds: list[list[CandidatePair]] = [[] for _ in range(MAX_PAIRS_A_PROMPT)]
    for pair in sorted(candidates, key=place):
        key = prompt_key("prompts", {"prompt": pair.prompt})
        if seen[key] < MAX_PAIRS_A_PROMPT:
            rounds[seen[key]].append(pair)
            seen[key] += 1
    return [pair for best in rounds for pair in best][:count]


def worth(pair: CandidatePair, choice: Choice) -> float:
    """By how much a pair is to be preferred; 0 for all where chance decides.

    Raises:
        ValueError: the pair lacks the figure that the choice goes by.
    """
    if choice == "random":
        return 0.0
    figure = pair.disagreement if choice == "disagreement" else pair.margin
    if figure is None:
        raise ValueError(f"pair {pair.pair_id} has no {choice}")
    return figure if choice == "disagreement" else -abs(figure)
