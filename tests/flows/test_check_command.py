import json
import subprocess
import sys

import pytest
from rich.cells import cell_len

from flows import cli

GOOD = {"prompt": "Why?", "completion": "Because."}
BAD = {"prompt": "How?", "completion": "So.<|im_end|>"}


@pytest.fixture
def check(monkeypatch, capsys, data_root):
    """Runs ``rlhf check`` on a terminal of 80 columns and returns its exit code and output."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)

    def run(*arguments):
        code = cli.main(["check", *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def write(tmp_path):
    def to_file(*records, name="data.jsonl"):
        path = tmp_path / name
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
        return path

    return to_file


def test_good_records_are_fine(check, write):
    code, output, errors = check(write(GOOD))
    assert (code, errors) == (0, "")
    assert "      1       1  data.jsonl  sft (TRL prompt-completion)\n" in output
    assert output.endswith("Fine.\n")


def test_findings_are_shown_with_place_and_cure(check, write):
    code, output, _ = check(write(GOOD, BAD, BAD, {"prompt": "日本" * 60, "completion": ""}))
    assert code == 1
    assert "error sft: Empty, or white space alone" in output
    assert "data.jsonl:2  So.<|im_end|>" in output
    assert "→ Cut it off: the tokenizer adds its own end" in output
    assert max(map(cell_len, output.splitlines())) <= 80


def test_json(check, write):
    code, output, _ = check(write(GOOD, BAD), "--json", "--kind", "sft")
    report = json.loads(output)
    assert (code, report["exit_code"]) == (1, 1)
    (finding,) = report["findings"]
    assert finding["code"] == "special-token-end"
    assert (finding["count"], finding["share"]) == (1, 0.5)
    assert finding["examples"] == [{"place": "data.jsonl:2", "excerpt": "So.<|im_end|>"}]
    assert finding["cure"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gone.jsonl"], "gone.jsonl: no such file or folder"),
        (["data.jsonl", "--tokenizer", "gone"], "--tokenizer gone: no tokenizer.json there"),
        (["data.jsonl", "--held-out", "gone.jsonl"], "gone.jsonl: no such file"),
    ],
)
def test_what_is_missing_is_one_line(check, write, monkeypatch, tmp_path, arguments, message):
    write(GOOD)
    monkeypatch.chdir(tmp_path)
    code, output, errors = check(*arguments)
    assert (code, output) == (2, "")
    assert message in errors
    assert errors.count("\n") == 1


def test_a_file_without_usable_records_is_unusable(check, write):
    code, output, _ = check(write({"foo": 1}))
    assert code == 2
    assert "Columns that mean nothing here" in output


def test_the_command_needs_no_torch(write):
    code = (
        f"import sys; from flows import cli; cli.main(['check', {str(write(GOOD))!r}]); "
        "print([name for name in ('torch', 'transformers', 'prefect', 'mlflow') "
        "if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.endswith("Fine.\n[]\n"), done.stderr
