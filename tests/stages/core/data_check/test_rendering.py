import io

from rich.cells import cell_len
from rich.console import Console

from stages.core.data_check import check_files, log_lines, markdown, table

BAD = [{"prompt": "a | *b*", "completion": f"c {n}</s>"} for n in range(4)]


def shown(report, width):
    console = Console(width=width, file=io.StringIO(), force_terminal=False)
    console.print(table(report))
    return console.file.getvalue()


def test_nothing_is_wider_than_the_terminal_and_no_number_is_cut(write):
    path = write(
        [{**row, "prompt": "字" * 60 + row["completion"]} for row in BAD], "x" * 60 + ".jsonl"
    )
    report = check_files([path])
    for width in (60, 80, 132):
        lines = shown(report, width).splitlines()
        assert max(map(cell_len, lines)) <= width
        assert lines[1].split()[:2] == ["4", "4"]
        assert lines[0].split() == ["records", "usable", "file", "holds"]


def test_the_parts_of_a_finding(write):
    text = shown(check_files([write(BAD)]), 80)
    lines = [line.strip() for line in text.splitlines()]
    at = lines.index("4  warning sft: Reply ends in a special token as text")
    assert lines[at + 1] == "100\u00a0%  completion </s> 4×"
    assert lines[at + 2] == "data.jsonl:1  c 0</s>"
    assert lines[at + 4] == "data.jsonl:3  c 2</s>"
    assert lines[at + 5].startswith("→ Cut it off")
    assert lines[-1] == "Findings to mend."


def test_markdown_shows_text_as_it_was_written(write):
    text = markdown(check_files([write(BAD)]), "Check of sft")
    assert text.startswith("# Check of sft\n\n| file | holds | records | usable |\n")
    assert "| data.jsonl | sft (TRL prompt-completion) | 4 | 4 |" in text
    assert "## warning: sft: Reply ends in a special token as text\n\n4 (100\u00a0%): " in text
    assert "c 0&#60;/s&#62;" in text
    assert "</s>" not in text


def test_the_log_has_one_line_a_finding(write):
    report = check_files([write(BAD)])
    assert log_lines(report) == [
        "check: warning: sft: 4 (100\u00a0%) × Reply ends in a special token as text: "
        "completion </s> 4×, first data.jsonl:1",
        "check: note: sft: 3 (75\u00a0%) × Same prompt, other completion, first data.jsonl:2",
    ]
    assert log_lines(check_files([write([{"prompt": "a"}], "good.jsonl")])) == ["check: fine"]


def test_of_many_files_the_faulty_ones_are_listed_and_the_others_counted(tmp_path):
    for number in range(50):
        (tmp_path / f"{number:02}.txt").write_text("A text.")
    (tmp_path / "x.jsonl").write_text('{"text": "a"}\n{"text": ""}\n')
    report = check_files([tmp_path], "documents")
    lines = shown(report, 80).splitlines()
    assert lines[1].split() == ["2", "1", "x.jsonl", "documents"]
    assert lines[21].split() == ["31", "31", "31", "more", "files", "documents"]
    assert "| 31 more files | documents | 31 | 31 |" in markdown(report)
