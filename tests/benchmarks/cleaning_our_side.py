"""Our side of the cleaning benchmark: the stage's own ``run`` on the corpus.

One process, one job. The settings are the defaults, with all evaluation sets to keep out.
"""

import functools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from cleaning_job import Clock, read_job, write_answer

from stages import clean
from stages.core.artifacts import Artifact
from stages.core.config import CleanConfig, Compute
from stages.core.contracts import CleanInputs, Datasets

STEPS = {
    "_evaluation": "index of evaluation data",
    "clean_shards": "shards",
    "compare": "comparison",
    "_write_kind": "writing",
}
"""The functions that ``run`` calls for most of its work, and what they are called in the tables."""


def time_steps(clock: Clock) -> None:
    """Let the functions note their CPU time."""
    for name, step in STEPS.items():
        function = getattr(clean, name, None)
        if function is None:
            raise SystemExit(f"stages.clean has no {name} any more: adapt cleaning_our_side.py")

        @functools.wraps(function)
        def timed(*given, function=function, step=step):
            with clock.step(step):
                return function(*given)

        setattr(clean, name, timed)


def main() -> None:
    job = read_job()
    config = CleanConfig(evaluation_sets=job.evaluation, max_reject_share=1.0, **job.settings)
    # The flow takes the digests of what goes in; they name the result and are not read here.
    inputs = CleanInputs(
        datasets=Datasets(documents=Artifact(kind="documents", path=job.corpus, digest="")),
        evaluation=tuple(Artifact(kind="source", path=path, digest="") for path in job.evaluation),
    )
    clock = Clock()
    time_steps(clock)
    _, metrics = clean.run(
        config, inputs, Compute(device="cpu", num_threads=job.workers), Path(job.out)
    )
    write_answer(job, clock, metrics)


if __name__ == "__main__":
    main()
