"""Recall and precision of the personal data found in text that others wrote for that purpose.

    python tests/benchmarks/personal_data.py --cache FOLDER [--half measured] [--show 20]

Fetches with pip into the folder, and reads there: the sentence templates and made-up people of
presidio-evaluator, filled also by Faker in the ways of 16 countries; the labelled cases in the
tests of datafog, pii-codex and phonenumbers; and strings of the forms that detect-secrets looks
for. Nothing of these is in this repository. A hash splits them into the half that one may look at
(``--show``) while writing rules, and the half that is only measured.

Beside ours it measures Presidio's recognisers, where ``presidio_analyzer`` can be imported. Prints
a table and, as the last line, one JSON object.
"""

import argparse
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from stages.core.personal_data import KINDS, find
from tests.benchmarks.personal_data_cases import Case, all_cases, half

PRESIDIO_KINDS = {
    "EMAIL_ADDRESS": "email", "PHONE_NUMBER": "phone", "IP_ADDRESS": "ip_address",
    "IBAN_CODE": "iban", "CREDIT_CARD": "credit_card",
}  # fmt: skip
"""Its others are taken for numbers of identity, or left out."""
PRESIDIO_LEFT_OUT = {
    "DATE_TIME", "URL", "CRYPTO", "MEDICAL_LICENSE", "US_BANK_NUMBER", "US_DRIVER_LICENSE",
    "US_PASSPORT", "MAC_ADDRESS", "NRP", "LOCATION", "PERSON",
}  # fmt: skip
SAME_SHARE = 0.7
"""Of the letters and digits of a value must be found: the rest may be an extension."""
Found = Iterable[tuple[str, str]]


def ours(text: str) -> Found:
    return [(kind, value) for kind, value in find(text)]


def presidio() -> Callable[[str], Found] | None:
    """Its recognisers that work by patterns, without a language model, with the entities' default
    threshold of none; where spans overlap the likelier one counts."""
    try:
        from presidio_analyzer import RecognizerRegistry
    except ImportError:
        return None
    registry = RecognizerRegistry()
    registry.load_predefined_recognizers(languages=["en"])
    recognisers = [
        recogniser
        for recogniser in registry.recognizers
        if not set(recogniser.supported_entities) & {"PERSON", *PRESIDIO_LEFT_OUT}
    ]

    def found(text: str) -> Found:
        results = [
            result
            for recogniser in recognisers
            for result in recogniser.analyze(text, recogniser.supported_entities, None) or ()
        ]
        results.sort(key=lambda result: (-result.score, result.start - result.end))
        kept: list = []
        for result in results:
            if all(result.end <= other.start or other.end <= result.start for other in kept):
                kept.append(result)
        return [
            (PRESIDIO_KINDS.get(result.entity_type, "national_id"), text[result.start : result.end])
            for result in kept
        ]

    return found


def is_same(kind: str, expected: str, found: str) -> bool:
    """Whether a found value is the expected one; a secret may be written with its name."""
    wanted, got = (re.sub(r"[\W_]", "", value).casefold() for value in (expected, found))
    if kind == "secret":
        return bool(got) and (got in wanted or wanted in got)
    return wanted == got or (got in wanted and len(got) >= SAME_SHARE * len(wanted))


def score(cases: list[Case], look: Callable[[str], Found], show: int) -> dict[str, dict]:
    """Recall and precision by kind; prints the first ``show`` faults of each kind."""
    hits, expected_count, right, found_count = Counter(), Counter(), Counter(), Counter()
    shown: Counter = Counter()
    for case in cases:
        left = [(kind, value) for kind, value in look(case.text) if kind in case.asked]
        for kind, value in left:
            found_count[kind] += 1
            is_right = any(kind == k and is_same(k, v, value) for k, v in case.expected)
            right[kind] += is_right
            if not is_right and shown[kind, "extra"] < show:
                shown[kind, "extra"] += 1
                print(f"  extra {kind} {value!r} in {case.text[:160]!r}")
        for kind, value in case.expected:
            expected_count[kind] += 1
            is_hit = any(kind == k and is_same(kind, value, v) for k, v in left)
            hits[kind] += is_hit
            if not is_hit and shown[kind, "missed"] < show:
                shown[kind, "missed"] += 1
                print(f"  missed {kind} {value!r} in {case.text[:160]!r}")

    def figures(kinds: Iterable[str]) -> dict:
        wanted = sum(expected_count[kind] for kind in kinds)
        got = sum(found_count[kind] for kind in kinds)
        return {
            "expected": wanted,
            "recall": round(sum(hits[kind] for kind in kinds) / wanted, 3) if wanted else None,
            "found": got,
            "precision": round(sum(right[kind] for kind in kinds) / got, 3) if got else None,
        }

    return {kind: figures([kind]) for kind in KINDS} | {"all": figures(KINDS)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, required=True, help="folder for the downloads")
    parser.add_argument("--half", choices=("tuned", "measured"), default="measured")
    parser.add_argument("--show", type=int, default=0, help="faults of each kind to print (tuned)")
    options = parser.parse_args()
    if options.show and options.half == "measured":
        parser.error("--show would spoil the measured half")
    options.cache.mkdir(parents=True, exist_ok=True)
    cases = [case for case in all_cases(options.cache) if half(case.group) == options.half]
    result: dict = {"half": options.half, "cases": dict(Counter(case.source for case in cases))}
    for name, look in (("ours", ours), ("presidio", presidio())):
        if look is None:
            continue
        started = time.process_time()
        result[name] = score(cases, look, options.show if name == "ours" else 0)
        seconds = time.process_time() - started
        megabytes = sum(len(case.text.encode()) for case in cases) / 1e6
        print(f"\n{name}: {len(cases)} texts, {megabytes / seconds:.2f} MB/s one by one")
        for kind, row in result[name].items():
            print(f"  {kind:12}", *(f"{key} {value}" for key, value in row.items()))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
