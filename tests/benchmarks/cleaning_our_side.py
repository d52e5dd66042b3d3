"""Our side of the cleaning benchmark: the stage's own ``run`` on the corpus.

One process, one job. The settings are the defaults, with all evaluation sets to keep out.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from cleaning_job import Clock, read_job, write_answer

from stages import clean
from stages.core.artifacts import Artifact
from stages.core.config import CleanConfig, Compute
from stages.core.contracts import CleanInputs, Datasets


def main() -> None:
    job = read_job()
    config = CleanConfig(evaluation_sets=job.evaluation, max_reject_share=1.0, **job.settings)
    # The flow takes the digests of what goes in; they name the result and are not read here.
    inputs = CleanInputs(
        datasets=Datasets(documents=Artifact(kind="documents", path=job.corpus, digest="")),
        evaluation=tuple(Artifact(kind="source", path=path, digest="") for path in job.evaluation),
    )
    clock = Clock()
    _, metrics = clean.run(
        config, inputs, Compute(device="cpu", num_threads=job.workers), Path(job.out)
    )
    write_answer(job, clock, metrics)


if __name__ == "__main__":
    main()
