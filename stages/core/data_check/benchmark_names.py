"""Names of well-known benchmarks inside other text, such as a template's name."""

import re

BENCHMARKS = (
    "adversarial_qa", "agieval", "alpaca_eval", "anli", "aqua_rat", "arc_challenge", "arc_easy",
    "bbh", "big_bench", "blimp", "bold", "boolq", "c_eval", "ceval", "cmmlu", "cnn_dailymail",
    "commonsense_qa", "coqa", "cosmos_qa", "crows_pairs", "glue", "gpqa", "gsm8k", "hellaswag",
    "human_eval", "humaneval", "ifeval", "lambada", "livecodebench", "logiqa", "mbpp", "mgsm",
    "mmlu", "mmlu_pro", "mnli", "mrpc", "mt_bench", "multirc", "narrative_qa", "natural_questions",
    "openbook_qa", "openbookqa", "paws", "piqa", "pubmed_qa", "qasc", "qnli", "qqp", "quac",
    "quail", "quarel", "quartz", "quoref", "ropes", "rte", "sciq", "social_i_qa", "social_iqa",
    "squad", "squad_v2", "sst2", "sst_2", "stsb", "super_glue", "svamp", "swag", "swe_bench",
    "trec", "trivia_qa", "triviaqa", "truthful_qa", "truthfulqa", "tydiqa", "web_questions",
    "wic", "wiki_hop", "wikitext", "winogender", "winogrande", "wnli", "xcopa", "xnli", "xquad",
    "xstory_cloze", "xwinograd",
)  # fmt: skip
"""Sets that are held out to measure models on; ones with everyday names (race, drop, math, cola)
are left out."""


def _pattern() -> re.Pattern[str]:
    longest_first = sorted(BENCHMARKS, key=len, reverse=True)
    names = "|".join(name.replace("_", "[-_ ]?") for name in longest_first)
    return re.compile(rf"(?<![a-z0-9])(?:{names})(?![a-z0-9])", re.IGNORECASE)


PATTERN = _pattern()


def benchmark_in(name: str) -> str:
    """The benchmark that ``name`` speaks of, spelt as there and in lower case; "" if none."""
    found = PATTERN.search(name)
    return found[0].lower() if found else ""
