"""Repair, redact, filter and deduplicate the collected records.

First each shard for itself (``shard``: texts, quality, evaluation data), in several processes; then
the records with each other (``comparison``: duplicates, near duplicates, what is also held out);
then everything is written in one go through the shards.
"""

import difflib
import itertools
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl

from stages.clean.comparison import RULES, STAYS, Comparison, compare
from stages.clean.guard import set_aside_for_guard
from stages.clean.removed import Removed
from stages.clean.report import REMOVING, Counts, Histograms, write_report
from stages.clean.reserved import mark_reserved
from stages.clean.shard import ShardSettings
from stages.clean.shards import SPLITS, Shard, clean_shards, cut
from stages.clean.toxicity import mark_toxic
from stages.core import personal_data
from stages.core.artifacts import Artifact, make_artifact
from stages.core.config import CleanConfig, Compute
from stages.core.contracts import CleanInputs, Datasets
from stages.core.errors import UserError
from stages.core.evaluation_overlap import EvaluationIndex, evaluation_texts
from stages.core.rejects import refuse
from stages.core.schemas import DATA_KINDS, DataKind

PARTIAL = "partial"
"""Folder of the shards' tables, until the stage is complete."""
PERSONAL_DATA_FILE = "personal_data.txt"
OTHER_RULES = ("repair", "notices", "redact")

HINTS = {
    "too_short": "lower clean.quality.min_characters if such short documents are meant",
    "too_long": "raise clean.max_record_characters, or cut documents with max_piece_characters",
    "evaluation": "take the sets off clean.evaluation_sets that the data may hold",
    "toxicity": "raise clean.max_toxicity",
    "duplicate": "set clean.remove_duplicates=false if the repetitions are meant",
    "near_duplicate": "raise clean.near_duplicate_similarity if they are different enough",
    "in_held_out": "hold out records that are not in the training data",
    "language": "add the language to clean.languages",
}


def run(
    config: CleanConfig, inputs: CleanInputs, compute: Compute, out_dir: Path
) -> tuple[Datasets, dict[str, float]]:
    """Write ``<kind>/train.jsonl`` and ``<kind>/held_out.jsonl`` for each kind given, the removed
    records to ``rejects.jsonl.zst``, the counts to ``counts.json`` and a report to ``report.md``.

    With ``guard_share``, ``guard_preferences/`` takes its share of the training pairs. Of the
    personal data in the training records that stay, redacted or not, the digests go to
    ``personal_data.txt``, so that a model's replies can be searched for it.

    Metrics, in records: ``<kind>_<split>_read`` and ``_kept``; ``<kind>_removed``, ``_repaired``,
    ``_contradictory``; in placeholders: ``<kind>_redacted``.

    Raises:
        UserError: too large a share of a kind is removed, or the whole of a split; a setting names
            no rule.
    """
    _check_skipped(config)
    given: dict[DataKind, Artifact] = {
        kind: artifact for kind in DATA_KINDS if (artifact := getattr(inputs.datasets, kind))
    }
    partial = out_dir / PARTIAL
    partial.mkdir(exist_ok=True)
    shards = {kind: cut(kind, artifact, partial) for kind, artifact in given.items()}
    clean_shards(list(itertools.chain(*shards.values())), config, _evaluation(inputs), compute)
    datasets: dict[str, Artifact] = {}
    counts: dict[str, Counts] = {}
    histograms: dict[str, Histograms] = {}
    digests: set[str] = set()
    with Removed(out_dir) as removed:
        for kind, artifact in given.items():
            if inputs.toxicity_scorer:
                mark_toxic(shards[kind], config, inputs.toxicity_scorer, compute)
            mark_reserved(shards[kind], config, artifact)
            settings = ShardSettings(config, kind, "train")
            comparison = compare(shards[kind], settings, partial, config.max_memory_gb)
            folder = out_dir / kind
            folder.mkdir(exist_ok=True)
            histograms[kind] = Histograms()
            of_kind = _write_kind(
                config, artifact, shards[kind], comparison, folder, removed, histograms[kind],
                digests,
            )  # fmt: skip
            counts |= {f"{kind}/{split}": of_kind[split] for split in reversed(SPLITS)}
            _check_left(config, kind, of_kind, removed)
            if kind == "preferences" and config.guard_share:
                guard_folder = out_dir / "guard_preferences"
                train = of_kind["train"]
                train["guard"], train["kept"] = set_aside_for_guard(
                    config.guard_share, folder, guard_folder
                )
                datasets["guard_preferences"] = make_artifact(kind, guard_folder)
            datasets[kind] = make_artifact(kind, folder)
    if digests:
        path = out_dir / PERSONAL_DATA_FILE
        path.write_text("".join(f"{digest}\n" for digest in sorted(digests)), encoding="utf-8")
        datasets["personal_data"] = make_artifact("personal_data", path)
    write_report(config, counts, removed, histograms, out_dir)
    shutil.rmtree(partial)
    return Datasets(**datasets), _metrics(counts)


# ------------------------------------------------------------------------------------- settings


def _check_skipped(config: CleanConfig) -> None:
    known = [name for name in (*OTHER_RULES, *REMOVING) if name != "unusable"]
    for kind, names in config.skip.items():
        for name in names:
            if name == "unusable":
                raise UserError(f"clean.skip.{kind}: no stage can use unusable records; mend them")
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
                raise UserError(f"clean.skip.{kind}: no rule {name!r}; did you mean {near!r}?")


def _evaluation(inputs: CleanInputs) -> EvaluationIndex | None:
    """The index of the evaluation sets, each named by its file and the folder around it."""
    if not inputs.evaluation:
        return None
    paths = [artifact.locate() for artifact in inputs.evaluation]
    return EvaluationIndex.build(
        {name: evaluation_texts(path) for name, path in zip(_names(paths), paths, strict=True)}
    )


def _names(paths: list[Path]) -> list[str]:
    """The last parts of each path, two or as many as tell them apart."""
    for count in range(2, max(len(path.parts) for path in paths)):
        names = ["/".join(path.parts[-count:]) for path in paths]
        if len(set(names)) == len(set(paths)):
            return names
    return [path.as_posix() for path in paths]


# -------------------------------------------------------------------------------------- writing


def _write_kind(
    config: CleanConfig,
    artifact: Artifact,
    shards: list[Shard],
    comparison: Comparison,
    folder: Path,
    removed: Removed,
    histograms: Histograms,
    digests: set[str],
) -> dict[str, Counts]:
    """Write both splits of one kind of data and return their counts."""
    counts: dict[str, Counts] = {}
    verdicts = dict(
        zip(shards, zip(comparison.verdicts, comparison.twins, strict=True), strict=True)
    )
    for split in SPLITS:
        counts[split] = Counter(contradictory=comparison.contradictory[split])
        path = folder / f"{split}.jsonl"
        part = path.with_name(f".{path.name}.part")
        with part.open("wb") as file:
            for shard in (shard for shard in shards if shard.split == split):
                broken, twins = verdicts[shard]
                table = _final_rules(pl.read_parquet(shard.table), broken)
                _count(config, table, counts[split])
                is_kept = table["rule"].is_null().to_numpy()
                histograms.add(table, is_kept)
                if split == "train":  # models are trained on these alone
                    stays = table if config.dry_run else table.filter(is_kept)
                    found = stays["found"].explode().struct.unnest()
                    digests.update(found["digest"].drop_nulls())
                lines = shard.read()
                numbered = _numbered(table).with_row_index("index").filter(~is_kept)
                for row in numbered.iter_rows(named=True):
                    place = f"{artifact.path}/{split}.jsonl", shard.first_line + row["line"]
                    like = ""
                    if broken[row["index"]] != STAYS:
                        number, line = twins[row["index"]]
                        of, line = shards[number].split, shards[number].first_line + line
                        like = f"{artifact.path}/{of}.jsonl:{line}"
                    whole = lines[row["start"] : row["end"]]
                    record = row["row"] if row["piece"] else whole
                    verdict = row["rule"], row["reason"], row["score"]
                    removed.add(shard.kind, split, place, verdict, record, row["piece"], like)
                if config.dry_run:
                    file.write(lines)
                else:
                    columns = table.filter(is_kept).select("row", "start", "end")
                    for row, start, end in columns.iter_rows():
                        file.write(row or lines[start:end])
        part.replace(path)
    return counts


def _final_rules(table: pl.DataFrame, verdicts: np.ndarray) -> pl.DataFrame:
    """The table with the rules that the comparison found broken."""
    names = pl.Series([RULES[verdict] for verdict in verdicts.tolist()], dtype=pl.String)
    is_removed = pl.Series(verdicts != STAYS)
    return table.with_columns(
        pl.when(is_removed).then(names).otherwise(column).alias(column)
        for column in ("rule", "reason")
    )


def _numbered(table: pl.DataFrame) -> pl.DataFrame:
    """The table with the number of each ``piece``, from 1; 0 of records that are whole."""
    number = pl.int_range(1, pl.len() + 1).over("line")
    return table.with_columns(piece=pl.when(pl.len().over("line") > 1).then(number).otherwise(0))


def _count(config: CleanConfig, table: pl.DataFrame, counts: Counts) -> None:
    records = table.unique("line", keep="first", maintain_order=True)
    counts["read"] += len(records)
    counts["repaired"] += int(records["is_repaired"].sum())
    counts["notices"] += int(records["has_notices"].sum())
    found = records["found"].explode().drop_nulls()
    redacted = found.struct.field("kind") if len(found) else pl.Series(dtype=pl.String)
    counts.update(redacted.filter(redacted.is_in(config.redact)).to_list())
    counts.update(table["rule"].drop_nulls().to_list())
    counts["kept"] += len(records) if config.dry_run else table["rule"].null_count()


def _check_left(
    config: CleanConfig, kind: DataKind, counts: dict[str, Counts], removed: Removed
) -> None:
    """Refuse to go on with too little.

    Raises:
        UserError: more of a kind is removed than ``max_reject_share`` allows, or a whole split; or
            there was nothing to begin with.
    """
    if not any(of["read"] for of in counts.values()):
        raise UserError(f"{kind}: no records at all; give collect.{kind} other files")
    if config.dry_run:
        return
    # Of documents cut into pieces, the pieces.
    total = removed.count(kind) + sum(of["kept"] for of in counts.values())
    if removed.count(kind) > config.max_reject_share * total:
        refuse(
            removed.path,
            kind,
            total,
            f"clean.max_reject_share={config.max_reject_share:g}",
            removed.reasons[kind],
            {reason: place for (of, reason), place in removed.first_places.items() if of == kind},
            {reason: HINTS[rule] for reason, rule in removed.rules.items() if rule in HINTS},
            "relax that rule, or skip it with clean.skip, or raise clean.max_reject_share",
        )
    for split, of in counts.items():
        if of["read"] and not of["kept"]:
            most = ", ".join(
                f"{number}x {name}"
                for name, number in of.most_common()
                if name in REMOVING and number
            )
            raise UserError(
                f"{kind}: cleaning removes all {of['read']} records of {split} ({most}); "
                f"give more data or relax the settings of clean (reasons in {removed.path})"
            )


def _metrics(counts: dict[str, Counts]) -> dict[str, float]:
    metrics: dict[str, float] = {}
    totals: dict[str, Counts] = {}
    for name, of in counts.items():
        kind, _, split = name.partition("/")
        totals.setdefault(kind, Counter()).update(of)
        metrics[f"{kind}_{split}_read"] = float(of["read"])
        metrics[f"{kind}_{split}_kept"] = float(of["kept"])
    for kind, both in totals.items():
        metrics[f"{kind}_removed"] = float(sum(both[rule] for rule in REMOVING))
        metrics[f"{kind}_redacted"] = float(sum(both[name] for name in personal_data.KINDS))
        metrics[f"{kind}_repaired"] = float(both["repaired"])
        if kind in ("preferences", "labelled"):
            metrics[f"{kind}_contradictory"] = float(both["contradictory"])
        if both["guard"]:
            metrics["guard_preferences_train_kept"] = float(both["guard"])
    return metrics
