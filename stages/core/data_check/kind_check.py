"""All checks on the records of one kind, batch by batch, over several files."""

from collections import Counter
from collections.abc import Callable, Sequence

import polars as pl

from stages.core.data_check.benchmark_names import benchmark_in
from stages.core.data_check.columns import TEXTS
from stages.core.data_check.findings import EXAMPLES, Example, Tally, excerpt
from stages.core.data_check.leaks import is_among, overlaps, shared_piece
from stages.core.data_check.lengths import Lengths
from stages.core.data_check.repeats import Fingerprints, Hashes, Place, asked_hashes
from stages.core.data_check.rows import Batch
from stages.core.data_check.texts import special_token_pattern, text_hits
from stages.core.evaluation_overlap import EvaluationIndex
from stages.core.schemas import DataKind
from stages.core.wording import percent

BIASED_SHARES = 0.35, 0.65
"""Of pairs whose chosen reply is the longer one; outside, length alone tells much of the label."""
BIAS_PAIRS = 40
"""In fewer, a share beyond ``BIASED_SHARES`` can be chance."""
IMBALANCE = 10
"""Times as many records of the commonest label as of the rarest one."""
MAX_LABELS = 10_000
MAX_TOKENS = 10_000
"""Different special tokens that are counted, so that memory is bounded."""


class KindCheck:
    """What is found in the records of one kind."""

    def __init__(
        self,
        kind: DataKind,
        tally: Tally,
        *,
        lengths: Lengths,
        context: int,
        held_out: Hashes | None = None,
        evaluation: EvaluationIndex | None = None,
    ) -> None:
        self.kind = kind
        self.tally = tally
        self.lengths = lengths
        self.context = context
        self.held_out = held_out
        self.evaluation = evaluation
        self.pattern = special_token_pattern(lengths.special_tokens)
        self.fingerprints = Fingerprints(kind)
        self.found: dict[str, Counter[str]] = {}
        self.benchmarks: dict[str, Counter[str]] = {}
        self.labels: Counter[str] = Counter()
        self.label_lines: dict[str, Example] = {}
        self.longer = {"chosen": 0, "rejected": 0}

    # ------------------------------------------------------------------------ a batch at a time

    def add(self, file: int, name: str, batch: Batch) -> None:
        """Check a batch of the file of this index and name."""
        for fault in batch.faults:
            example = Example(f"{name}:{fault.line}", fault.excerpt)
            self.tally.add(self.kind, fault.code, 1, [example], group=fault.detail)
        if crlf := batch.notes.get("crlf", 0):
            self.tally.add(self.kind, "crlf", crlf)
        if batch.notes.get("bom"):
            self.tally.add(self.kind, "bom", 1, [Example(f"{name}:1", "")])
        self._check_marks(name, batch.marks)
        rows = batch.rows
        if rows.height == 0:
            return
        self._check_texts(name, rows)
        self._check_lengths(name, rows)
        self.fingerprints.add(file, rows)
        if self.kind == "preferences":
            self._count_longer(rows)
        if self.kind == "labelled":
            self._count_labels(name, rows)
        self._check_leaks(name, rows)

    def _check_texts(self, name: str, rows: pl.DataFrame) -> None:
        for hit in text_hits(rows, TEXTS[self.kind], self.pattern):
            counter = self.found.setdefault(hit.code, Counter())
            if len(counter) < MAX_TOKENS:
                counter.update(hit.found)
            examples = [Example(f"{name}:{line}", text) for line, text in hit.examples]
            self.tally.add(
                self.kind, hit.code, hit.num_records, examples, detail=_most_common(counter)
            )

    def _check_lengths(self, name: str, rows: pl.DataFrame) -> None:
        if not self.context or self.kind == "documents":  # documents are packed, not cut off
            return
        found = self.lengths.too_long(rows, TEXTS[self.kind], self.context)
        about = "" if self.lengths.tokenizer else "about "
        places = [
            Example(f"{name}:{line}", f"{about}{tokens:,} tokens")
            for line, tokens in zip(found.lines, found.tokens, strict=True)
        ]
        detail = f"context {self.context:,}"
        self.tally.add(self.kind, "over-long", len(found.lines), places, detail=detail)
        cut = set(found.reply_cut)
        cut_places = [place for place, line in zip(places, found.lines, strict=True) if line in cut]
        self.tally.add(self.kind, "reply-cut", len(cut), cut_places, detail=detail)

    def _check_marks(self, name: str, marks: pl.DataFrame) -> None:
        for column in marks.columns[1:]:
            values = marks[column].drop_nulls().unique()
            named = {value: benchmark for value in values if (benchmark := benchmark_in(value))}
            if not named:
                continue
            found = marks.filter(pl.col(column).is_in(list(named)))
            counter = self.benchmarks.setdefault(column, Counter())
            counter.update(named[value] for value in found[column])
            examples = [
                Example(f"{name}:{line}", excerpt(value))
                for line, value in found.select("line", column).head(EXAMPLES).iter_rows()
            ]
            detail = f"{column}: {_most_common(counter)}"
            self.tally.add(
                self.kind, "evaluation-template", found.height, examples, group=column,
                detail=detail,
            )  # fmt: skip

    def _check_leaks(self, name: str, rows: pl.DataFrame) -> None:
        asked = TEXTS[self.kind][0]
        if self.held_out is not None:
            leaks = rows.filter(is_among(asked_hashes(rows, asked), self.held_out))
            shown = leaks.select("line", asked).head(EXAMPLES).iter_rows()
            examples = [Example(f"{name}:{line}", excerpt(text)) for line, text in shown]
            self.tally.add(self.kind, "leak", leaks.height, examples)
        if self.evaluation is None:
            return
        for name_of_set, found in overlaps(self.evaluation, rows, TEXTS[self.kind]):
            examples = [
                Example(f"{name}:{line}", shared_piece(self.evaluation, name_of_set, text))
                for line, text in found.head(EXAMPLES).iter_rows()
            ]
            self.tally.add(
                self.kind, "evaluation-overlap", found.height, examples, group=name_of_set
            )

    def _count_longer(self, rows: pl.DataFrame) -> None:
        chosen, rejected = (rows[name].str.len_chars() for name in ("chosen", "rejected"))
        self.longer["chosen"] += int((chosen > rejected).sum())
        self.longer["rejected"] += int((rejected > chosen).sum())

    def _count_labels(self, name: str, rows: pl.DataFrame) -> None:
        if len(self.labels) > MAX_LABELS:
            return
        firsts = rows.group_by("label", maintain_order=True).agg(
            pl.len(), pl.col("line").first(), pl.col("text").first()
        )
        for label, count, line, text in firsts.iter_rows():
            self.labels[label] += count
            if label not in self.label_lines:
                place = Example(f"{name}:{line}", f"{excerpt(label)}: {excerpt(text)}")
                self.label_lines[label] = place

    # ------------------------------------------------------------------------ at the end

    def finish(self, names: Sequence[str], show: Callable[[Place], str]) -> dict[str, float]:
        """Findings about all records together, and figures. ``show``: an excerpt of a record."""
        for found in self.fingerprints.findings():
            examples = []
            for place, earlier in found.examples if found.num_records else ():
                beside = _beside(names, place, earlier)
                where = f"{names[place.file]}:{place.line}"
                examples.append(Example(where, f"{beside}: {show(place)}"))
            self.tally.add(self.kind, found.code, found.num_records, examples)
        self._check_labels()
        return self._length_bias()

    def _length_bias(self) -> dict[str, float]:
        pairs = sum(self.longer.values())
        if not pairs:
            return {}
        share = self.longer["chosen"] / pairs
        if pairs >= BIAS_PAIRS and not BIASED_SHARES[0] <= share <= BIASED_SHARES[1]:
            is_longer = share > BIASED_SHARES[1]
            detail = (
                f"the {'longer' if is_longer else 'shorter'} reply is chosen in "
                f"{percent(share if is_longer else 1 - share)} of {pairs:,} pairs"
            )
            count = self.longer["chosen" if is_longer else "rejected"]
            self.tally.add(self.kind, "length-bias", count, detail=detail)
        return {"preferences_chosen_longer": share}

    def _check_labels(self) -> None:
        if len(self.labels) > MAX_LABELS:
            self.tally.add(self.kind, "label-once", 1, detail="over 10,000 labels: is it a label?")
            return
        ranked = self.labels.most_common()
        once = [label for label, count in ranked if count == 1]
        if once and len(once) < len(ranked):
            examples = [self.label_lines[label] for label in once[:EXAMPLES]]
            self.tally.add(self.kind, "label-once", len(once), examples)
        often = [item for item in ranked if item[1] > 1]
        if len(often) > 1 and often[0][1] > IMBALANCE * often[-1][1]:
            (most, count), (least, few) = often[0], often[-1]
            detail = f"{count:,} × {excerpt(most)}, {few:,} × {excerpt(least)}"
            self.tally.add(
                self.kind, "label-imbalance", count, [self.label_lines[least]], detail=detail
            )


def _beside(names: Sequence[str], place: Place, earlier: Place) -> str:
    where = "" if place.file == earlier.file else f"{names[earlier.file]}:"
    return f"as {where}{earlier.line}" if where else f"as line {earlier.line}"


def _most_common(counter: Counter[str]) -> str:
    """``completion <|endoftext|> 5,998×``"""
    shown = [f"{name} {count:,}×" for name, count in counter.most_common(4)]
    return ", ".join([*shown, "…"] if len(counter) > 4 else shown)
