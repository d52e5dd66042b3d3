"""The guard: notices when the policy games its reward, which the reward itself cannot show.

It watches the KL to the reference, and the score of a scorer that is not optimised. An optimised
score that rises while the watched one falls is over-optimisation (Gao et al. 2023, "Scaling laws
for reward model overoptimization", figure 1).
"""

import math
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from stages.core.config import GuardConfig


class Scoring(NamedTuple):
    """What the replies of one rollout scored."""

    update: int
    """Updates before it was sampled."""
    optimized: float
    """Mean of the score that is optimised."""
    watched: float
    """Mean of the watched score."""
    watched_error: float
    """Its standard error."""


class Window(NamedTuple):
    """Consecutive scorings, averaged."""

    optimized: float
    watched: float
    watched_error: float


@dataclass(frozen=True)
class Alarm:
    """Something that the configured action follows."""

    update: int
    reason: str


@dataclass
class Guard:
    """The scorings of a run so far, and the alarms. Goes into the checkpoint."""

    config: GuardConfig
    scorings: list[Scoring] = field(default_factory=list)
    best: Window | None = None
    alarms: list[Alarm] = field(default_factory=list)
    updates_over: int = 0
    """Rollouts in a row whose KL was above the ceiling."""

    def observe_kl(self, update: int, kl: float) -> Alarm | None:
        """An alarm when the mean KL of a reply, nats, has risen above the ceiling or is no number.
        Where alarms raise the KL coefficient, there is another every ``window`` rollouts until it
        comes down."""
        # Not ">", which a KL that is not a number would pass.
        self.updates_over = 0 if kl <= self.config.kl_ceiling else self.updates_over + 1
        is_due = self.config.action == "raise_kl" and self.updates_over % self.config.window == 0
        if not (self.updates_over == 1 or (self.updates_over and is_due)):
            return None
        return self._alarm(
            update, f"the KL of {kl:.1f} nats a reply exceeds {self.config.kl_ceiling:g}"
        )

    def observe_scores(
        self, update: int, optimized: list[float], watched: list[float]
    ) -> tuple[Alarm | None, bool]:
        """Take one rollout's scores in.

        Returns:
            An alarm when the watched score has fallen while the optimised one has not, where alarms
            raise the KL coefficient another every ``window`` scorings while that is so; and whether
            the present policy is the best so far by the watched score.
        """
        mean, error = _mean_and_error(watched)
        self.scorings.append(Scoring(update, sum(optimized) / len(optimized), mean, error))
        if len(self.scorings) < self.config.window:
            return None, False
        now = _average(self.scorings[-self.config.window :])
        if self.best is None or now.watched > self.best.watched:
            self.best = now
            return None, True
        fall = self.best.watched - now.watched
        noise = math.hypot(self.best.watched_error, now.watched_error)
        # The best of n draws lies up to this many deviations above what they are drawn around:
        # without it, a long run would ring by chance.
        luck = math.sqrt(2 * math.log(len(self.scorings)))
        if fall <= (self.config.tolerance + luck) * noise or now.optimized < self.best.optimized:
            return None, False
        reason = (
            f"{self.config.scorer} fell from {self.best.watched:.3f} to {now.watched:.3f} while "
            f"the optimised score went from {self.best.optimized:.3f} to {now.optimized:.3f}"
        )
        # The next window lies behind the alarm. Where alarms raise the KL coefficient, it is held
        # against the same best, until that has helped; elsewhere it would ring without end.
        self.scorings.clear()
        if self.config.action != "raise_kl":
            self.best = None
        return self._alarm(update, reason), False

    def state(self) -> dict[str, Any]:
        """All but the configuration, as JSON would hold it."""
        return {
            "scorings": [list(scoring) for scoring in self.scorings],
            "best": list(self.best) if self.best else None,
            "alarms": [asdict(alarm) for alarm in self.alarms],
            "updates_over": self.updates_over,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """What ``state`` returned."""
        self.scorings = [Scoring(*scoring) for scoring in state["scorings"]]
        self.best = Window(*state["best"]) if state["best"] else None
        self.alarms = [Alarm(**alarm) for alarm in state["alarms"]]
        self.updates_over = state["updates_over"]

    def _alarm(self, update: int, reason: str) -> Alarm:
        self.alarms.append(Alarm(update, reason))
        return self.alarms[-1]


def _mean_and_error(scores: list[float]) -> tuple[float, float]:
    mean = sum(scores) / len(scores)
    variance = sum((score - mean) ** 2 for score in scores) / max(len(scores) - 1, 1)
    return mean, math.sqrt(variance / len(scores))


def _average(scorings: list[Scoring]) -> Window:
    count = len(scorings)
    return Window(
        sum(scoring.optimized for scoring in scorings) / count,
        sum(scoring.watched for scoring in scorings) / count,
        math.sqrt(sum(scoring.watched_error**2 for scoring in scorings)) / count,
    )
