"""What ``rlhf check`` says of the files that a run reads, in ``check.md`` and the log."""

from pathlib import Path

from stages.collect.judged import is_judged
from stages.core.artifacts import write_atomically
from stages.core.config import CollectConfig, DataSource
from stages.core.contracts import CollectInputs
from stages.core.data_check import CheckReport, check_files, log_lines, markdown
from stages.core.launch import WARNING_PREFIX
from stages.core.schemas import DATA_KINDS, DataKind
from stages.core.sources import left_out_remarks

CHECK_FILE = "check.md"


def write_check(config: CollectConfig, inputs: CollectInputs, out_dir: Path) -> None:
    """Check all training files, against the held-out ones where there are any.

    What is found is shown and stops nothing: whether a run goes on is decided by the records that
    it can use. Nor does a check that fails.
    """
    sections = []
    for kind in DATA_KINDS:
        try:
            report = _check(kind, getattr(config, kind), inputs)
        except Exception as error:
            print(f"check: {kind}: could not be made: {type(error).__name__}: {error}", flush=True)
            continue
        if report is not None:
            source: DataSource = getattr(config, kind)
            for remark in left_out_remarks((*source.paths, *source.held_out_paths)):
                print(f"{WARNING_PREFIX}{remark}", flush=True)
            print("\n".join(log_lines(report)), flush=True)
            sections.append(markdown(report, f"Check of {kind}"))
    if sections:
        write_atomically(out_dir / CHECK_FILE, "\n".join(sections))


def _check(kind: DataKind, source: DataSource, inputs: CollectInputs) -> CheckReport | None:
    train, held_out = (
        [artifact.locate() for artifact in getattr(inputs, name)]
        for name in (kind, f"{kind}_held_out")
    )
    if source.columns:  # the names of the user's files, not of judgments
        train, held_out = (
            [path for path in paths if not is_judged(path)] for paths in (train, held_out)
        )
    if not train:
        return None
    return check_files(train, kind, columns=source.columns, held_out=held_out)
