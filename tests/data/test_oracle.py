"""Hand-computed cases for the oracle of the demo data."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

SAMPLES = Path(__file__).parents[2] / "data" / "samples"


def load(name: str) -> ModuleType:
    """A file of data/samples as a module, loaded by its path as a scorer would be."""
    spec = importlib.util.spec_from_file_location(f"samples_{name}", SAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


oracle = load("oracle")

# Bram is a doctor; the cases below are computed from that.
PROMPT = "What is the job of Bram?"


def parts(completion: str, prompt: str = PROMPT) -> tuple[float, float, float, float]:
    """(fact, full_sentence, courteous, no_padding) of one reply."""
    earned = oracle.explain(prompt, completion)
    return (
        earned["fact"],
        earned["full_sentence"],
        earned["courteous"],
        earned["no_padding"],
    )


def test_world_is_fixed() -> None:
    assert len(oracle.FACTS) == 14 * 5 + 6 * 3
    assert oracle.recognise(PROMPT) == ("Bram", "job", "doctor")


def test_no_value_occurs_inside_another_of_its_attribute() -> None:
    for values in oracle.VALUES.values():
        assert not any(a != b and a in b for a in values for b in values)


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("Bram is a doctor. I hope this helps!", (0.4, 0.2, 0.2, 0.2)),
        ("Of course! Bram works as a doctor.", (0.4, 0.2, 0.2, 0.2)),
        ("Of course, Bram works as a doctor.", (0.4, 0.2, 0.2, 0.2)),
        # Fact: a wrong value, or the right one next to another.
        ("Bram is a baker. I hope this helps!", (0.0, 0.2, 0.2, 0.2)),
        ("Bram is a doctor and a baker. Have a nice day!", (0.0, 0.2, 0.2, 0.2)),
        # Full sentence: half of it each for the upper-case start and the end mark.
        ("Of course! Bram is a doctor", (0.4, 0.1, 0.2, 0.2)),
        ("bram is a doctor", (0.4, 0.0, 0.0, 0.2)),
        ("a doctor", (0.4, 0.0, 0.0, 0.05)),
        ("A doctor. Have a nice day!", (0.4, 0.0, 0.05, 0.05)),
        # Courteous: missing, in the middle, or spoiled by a rude sentence.
        ("Bram is a doctor.", (0.4, 0.2, 0.0, 0.2)),
        ("Bram is a doctor. Have a nice day! Bye.", (0.4, 0.2, 0.0, 0.0)),
        ("What a silly question. Bram is a doctor.", (0.4, 0.2, 0.0, 0.1)),
        ("Leave me alone now. Bram is a doctor. I hope this helps!", (0.4, 0.2, 0.0, 0.1)),
        # No padding: half of it for each sentence besides the answer, and for stutter.
        ("Bram is a doctor. There is so much to say. Have a nice day!", (0.4, 0.2, 0.2, 0.1)),
        ("Bram is a doctor. Bram is a doctor. Have a nice day!", (0.4, 0.2, 0.2, 0.0)),
        (
            "Of course! The job of Bram is doctor. The job of Bram is doctor.",
            (0.4, 0.2, 0.2, 0.0),
        ),
        ("Bram is a doctor a doctor. Have a nice day!", (0.4, 0.2, 0.2, 0.1)),
    ],
)
def test_components(completion: str, expected: tuple[float, float, float, float]) -> None:
    assert parts(completion) == pytest.approx(expected)
    assert oracle.score([PROMPT], [completion]) == pytest.approx([sum(expected)])


@pytest.mark.parametrize("completion", ["", "  \n", "...", "Have a nice day!", "Of course! !"])
def test_reply_without_content_scores_zero(completion: str) -> None:
    assert oracle.score([PROMPT], [completion]) == [0.0]


@pytest.mark.parametrize(
    "completion",
    [
        "Selka is a doctor. Have a nice day!",
        "The inn stands in Mill Street. It has a red door.",
        "Of course! Bram keeps a cat.",
        "doctor Bram the in a is has works. Street Monday Bram of a.",
        "Bram works as",
        "Bram is a doctor. Bram has a cat. Bram enjoys singing. Bram likes porridge best.",
        " ".join(["Bram is a doctor"] * 11),
    ],
)
def test_unrelated_replies_and_rambles_score_low(completion: str) -> None:
    assert 0.0 <= oracle.score([PROMPT], [completion])[0] < 0.25


def test_every_answer_form_is_perfect_for_every_question_form() -> None:
    for fact in oracle.FACTS:
        prompts = [oracle.sentence(q, fact.entity) for q in oracle.QUESTIONS[fact.attribute]]
        for form in oracle.ANSWERS[fact.attribute]:
            reply = f"With pleasure! {oracle.sentence(form, fact.entity, fact.value)}"
            assert oracle.score(prompts, [reply] * len(prompts)) == [1.0] * len(prompts)


def test_prompt_is_recognised_despite_case_spacing_and_punctuation() -> None:
    assert oracle.recognise("  what is the JOB of bram ") == oracle.recognise(PROMPT)


def test_unknown_prompt_is_refused() -> None:
    with pytest.raises(ValueError, match=r"not a question about Larkhaven: 'What is the job of X"):
        oracle.score(["What is the job of Xaver?"], ["A baker."])


def test_lists_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="1 prompts but 2 completions"):
        oracle.score([PROMPT], ["A baker.", "A doctor."])
