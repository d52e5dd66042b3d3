import pytest
from rich.console import Console

from flows import progress


def _event(step: int, total: int, **metrics: float | str) -> dict[str, object]:
    return {"step": step, "total": total, "metrics": metrics}


def test_plain_lines_at_start_and_end_and_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 30.0, 31.0])  # start, and one a step
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    lines: list[str] = []
    reporter = progress.PlainReporter(lines.append)
    reporter.start("pretrain")
    reporter.advance("pretrain", _event(1, 100, loss=6.9))
    reporter.advance("pretrain", _event(25, 100, loss=3.21))
    reporter.advance("pretrain", _event(26, 100, loss=3.2))
    reporter.end("pretrain", "done", 125.0, {"bits_per_byte": 1.234, "num_parameters": 3e6})
    assert lines == [
        "pretrain: started",
        "pretrain: 25/100, about 1 min 31 s left  loss 3.21",
        "pretrain: done in 2 min 05 s  bits per byte 1.23",
    ]


def test_the_live_line_follows_the_stage_and_its_retry() -> None:
    console = Console(force_terminal=True, width=100, record=True)
    with progress.reporting(console) as reporter:
        reporter.start("ppo")
        reporter.advance("ppo", _event(1, 4, score=0.25, kl=1.5))
        reporter.end("ppo", "failed", 1.0, {})
        reporter.start("ppo")
        reporter.end("ppo", "done", 1.0, {"score_last": 0.5})
    last_frame = console.export_text().rpartition("✓ ppo")[2]
    assert "score last 0.5" in last_frame


def test_warnings_are_shown_at_once_in_both_kinds() -> None:
    lines: list[str] = []
    progress.PlainReporter(lines.append).warn("ppo", "warning: the KL is high")
    assert lines == ["ppo: warning: the KL is high"]
    console = Console(force_terminal=True, width=100, record=True)
    with progress.reporting(console) as reporter:
        reporter.start("ppo")
        reporter.warn("ppo", "warning: the KL [is] high")
    assert "ppo: warning: the KL [is] high" in console.export_text()


def test_the_summary_is_a_table_and_where_to_look_next() -> None:
    console = Console(width=100, record=True)
    reporter = progress.Reporter()
    reporter.end("collect", "reused", 0.2, {"documents_train": 4719.0})
    reporter.places["report"] = "/data/report.html"
    progress.print_summary(console, reporter)
    text = console.export_text()
    assert "collect  reused  0.2 s  documents train 4,719" in text
    assert "report       /data/report.html" in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.26, "0.3 s"), (59.6, "1 min 00 s"), (125, "2 min 05 s"), (3720, "1 h 02 min")],
)
def test_durations_are_readable(seconds: float, text: str) -> None:
    assert progress.duration(seconds) == text


def test_unknown_figures_are_shown_when_no_known_one_is_there() -> None:
    assert progress.figures_text("evaluate", {"doing": "base replies"}) == "base replies"
    assert progress.figures_text("collect", {"unit": "bytes"}) == ""
    assert progress.figures_text("ppo", {"val/x": 2.0, "objective/kl": 0.5}) == "kl 0.5"
