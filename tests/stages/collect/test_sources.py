"""Known formats, web pages, files that break off or change, and the manifest of it all."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stages import collect
from stages.core.artifacts import file_digest, make_artifact
from stages.core.config import CollectConfig, Compute, DataSource
from stages.core.config.sources import UrlSource
from stages.core.contracts import CollectInputs
from stages.core.errors import UserError
from stages.core.fetch import cache_folder
from stages.core.fetch.snapshots import keep, part_folder
from stages.core.sources import CUT_OFF, source_files


def write_rows(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


ALPACA = [{"instruction": f"Add {n}.", "input": "", "output": str(n)} for n in range(30)]


# ---------------------------------------------------------------------------------- known formats


def test_a_known_format_is_named_in_the_log_and_converted(tmp_path, collected, capfd):
    result = collected("sft", write_rows(tmp_path / "sft.jsonl", ALPACA))
    assert result.train[3] == {"prompt": "Add 3.", "completion": "3"}
    assert len(result.train) == 30
    log = "sft.jsonl: Alpaca (instruction, input, output) → prompt, completion\n"
    assert log in capfd.readouterr().out


def test_records_in_another_format_than_the_files_are_set_aside(tmp_path, collected):
    others = [
        {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
        {"prompt": "a", "completion": "b"},
        {"instruction": "a"},
        {"instruction": "a", "output": ""},
    ]
    path = write_rows(tmp_path / "mixed.jsonl", ALPACA + others)
    result = collected("sft", path)
    assert len(result.train) == 30
    assert [(row["line"], row["reason"]) for row in result.rejects] == [
        (31, "column instruction missing"),
        (32, "column instruction missing"),
        (33, "column output missing"),
        (34, "completion is empty"),
    ]
    with pytest.raises(UserError, match="read as Alpaca; to have it read otherwise set collect"):
        collected("sft", path, max_reject_share=0.01)


def test_files_of_different_formats_come_together(tmp_path, collected):
    sharegpt = [{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}]
    files = [
        write_rows(tmp_path / "1.jsonl", ALPACA),
        write_rows(tmp_path / "2.jsonl", sharegpt),
        write_rows(tmp_path / "3.jsonl", [{"prompt": "x", "completion": "y"}]),
    ]
    result = collected("sft", *files)
    assert [row["completion"] for row in result.train[-2:]] == ["b", "y"]
    manifest = json.loads((result.folder / "manifest.json").read_text())
    assert [file["format"] for file in manifest["sft"]["train"]["files"]] == [
        "Alpaca",
        "ShareGPT",
        "TRL prompt-completion",
    ]


def test_mapped_columns_win_over_a_known_format(tmp_path, collected):
    path = write_rows(tmp_path / "a.jsonl", ALPACA)
    columns = {"prompt": "output", "completion": "instruction"}
    result = collected("sft", path, columns=columns)
    assert result.train[3] == {"prompt": "3", "completion": "Add 3."}


def test_trees_are_split_whole(tmp_path, collected):
    def tree(name):
        replies = [
            {"role": "assistant", "text": f"{name} {rank}", "rank": rank, "replies": [
                {"role": "prompter", "text": f"And {rank}?", "replies": [
                    {"role": "assistant", "text": f"{name} end {n}", "rank": n} for n in (0, 1)
                ]}
            ]}
            for rank in range(2)
        ]  # fmt: skip
        return {"message_tree_id": name, "prompt": {"text": f"Who is {name}?", "role": "prompter",
                                                    "replies": replies}}  # fmt: skip

    names = [f"N{number}" for number in range(40)]
    path = write_rows(tmp_path / "trees.jsonl", [tree(name) for name in names])
    result = collected("preferences", path, held_out_share=0.3)
    sides = [{row["chosen"].split()[0] for row in part} for part in (result.train, result.held_out)]
    assert sides[0] | sides[1] == set(names)
    assert not sides[0] & sides[1]
    assert len(result.train) + len(result.held_out) == 3 * 40
    assert sides[1]


def test_rankings_of_equals_are_counted_apart(tmp_path, collected):
    def record(*scores):
        replies = [{"response": f"r{n}", "overall_score": s} for n, s in enumerate(scores)]
        return {"instruction": "Why?", "completions": replies}

    path = write_rows(tmp_path / "u.jsonl", [record(1, 2, 3), record(5, 5), record(2, 1)])
    result = collected("preferences", path)
    assert len(result.train) == 4
    (file,) = json.loads((result.folder / "manifest.json").read_text())["preferences"]["train"][
        "files"
    ]
    assert file["records"] == {"read": 3, "used": 2, "rejected": 0, "empty": 1}
    assert file["rows"] == 4


# --------------------------------------------------------------------------------- pages, archives


def test_a_folder_of_pages_is_documents(tmp_path, collected):
    for number in range(3):
        page = tmp_path / "site" / str(number) / "index.html"
        page.parent.mkdir(parents=True)
        page.write_text(
            f"<body><nav><a href=/>Home</a></nav><main><p>Page {number} is about cranes.</p></main>"
        )
    files = source_files((str(tmp_path / "site"),))
    result = collected("documents", *files)
    assert [row["text"] for row in result.train] == [
        f"Page {number} is about cranes." for number in range(3)
    ]
    with pytest.raises(UserError, match="plain text can only be documents"):
        collected("sft", *files)


def test_an_address_in_an_archive_is_the_source_of_its_text(tmp_path, collected):
    body = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<p>Cranes fly south in autumn.</p>"
    head = (
        "WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: https://example.org/a\r\n"
        f"Content-Type: application/http\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    path = tmp_path / "a.warc.gz"
    path.write_bytes(gzip.compress(head.encode() + body + b"\r\n\r\n"))
    assert collected("documents", path).train == [
        {"text": "Cranes fly south in autumn.", "source": "https://example.org/a"}
    ]


# -------------------------------------------------------------------------- damage, change, memory


def test_what_is_readable_of_a_cut_off_file_is_used_and_the_rest_named(tmp_path, collected, capfd):
    rows = [{"prompt": f"q {n}", "completion": os.urandom(20).hex()} for n in range(2000)]
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(content)[:-5000])
    result = collected("sft", path, max_reject_share=0.01)
    assert 1500 < len(result.train) < 2000
    assert result.train == rows[: len(result.train)]
    assert [row["reason"] for row in result.rejects] == [CUT_OFF]
    warning = f"the {len(result.train):,} records before it are used; make or fetch the file again"
    assert warning in capfd.readouterr().out
    (file,) = json.loads((result.folder / "manifest.json").read_text())["sft"]["train"]["files"]
    read = len(result.train)
    assert file["records"] == {"read": read, "used": read, "rejected": 0, "empty": 0}


@pytest.mark.parametrize(
    "content", ['{"text": "b"}\n' * 9, '[{"text": "b"}, {"te', "", None], ids=str
)
def test_a_file_that_changed_since_its_digest_was_taken_is_refused(tmp_path, content):
    path = write_rows(tmp_path / "a.json", [{"text": "a"}] * 9)
    inputs = CollectInputs(documents=(make_artifact("source", path),))
    digest = file_digest(path)[:12]
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    config = CollectConfig(documents=DataSource(held_out_share=0.0))
    message = "a.json: No such file" if content is None else rf"a\.json: changed .*{digest} then"
    with pytest.raises(UserError, match=message) as caught:
        collect.run(config, inputs, Compute(), tmp_path)
    assert "\n" not in str(caught.value)


MEASURE = """
import sys
from pathlib import Path
from stages import collect
from stages.core.artifacts import make_artifact
from stages.core.config import CollectConfig, Compute, DataSource
from stages.core.contracts import CollectInputs
config = CollectConfig(sft=DataSource(held_out_share=0.1))
inputs = CollectInputs(sft=(make_artifact("source", Path(sys.argv[1])),))
out_dir = Path(sys.argv[1]).with_suffix("")
out_dir.mkdir()
collect.run(config, inputs, Compute(), out_dir)
# Unlike getrusage's, this peak does not begin with the parent's.
(peak,) = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(peak.split()[1])
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(tmp_path):
    line = json.dumps({"instruction": "x" * 1000, "output": "y" * 1000})
    peaks = []
    for count in (6_000, 24_000):  # the check reads blocks of 4 MB
        path = tmp_path / f"{count}.jsonl"
        path.write_text("".join(line.replace("x", str(n), 1) + "\n" for n in range(count)))
        done = subprocess.run(
            [sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, check=True
        )
        peaks.append(int(done.stdout.split()[-1]) / 1024)
    assert peaks[1] - peaks[0] < 16  # MiB more for 36 MB more


# ---------------------------------------------------------------------------------------- manifest


def test_the_manifest_says_what_became_of_each_file(tmp_path, collected):
    train = write_rows(tmp_path / "a.jsonl", [{"text": f"t {n}"} for n in range(9)] + [{"n": 1}])
    held_out = write_rows(tmp_path / "b.jsonl", [{"text": "h"}])
    result = collected("documents", train, held_out=[held_out], max_records=5)
    manifest = json.loads((result.folder / "manifest.json").read_text())
    assert manifest["documents"]["train"] == {
        "rows": 5,
        "files": [
            {
                "path": "a.jsonl",
                "sha256": file_digest(train),
                "bytes": train.stat().st_size,
                "format": "",
                "records": {"read": 10, "used": 9, "rejected": 1, "empty": 0},
                "rows": 9,
            }
        ],
    }
    assert manifest["documents"]["held_out"]["rows"] == 1
    assert manifest["documents"]["held_out"]["files"][0]["path"] == "b.jsonl"


def test_of_fetched_files_the_manifest_names_address_and_licence(tmp_path, collected):
    source = UrlSource(url="https://example.org/a.jsonl")
    file = write_rows(part_folder(cache_folder(), source) / "a.jsonl", [{"text": "a"}])
    snapshot = keep(cache_folder(), source, [file], licence="CC0-1.0", version={"etag": '"1"'})
    path = cache_folder() / snapshot.folder / "a.jsonl"
    result = collected("documents", path)
    (entry,) = json.loads((result.folder / "manifest.json").read_text())["documents"]["train"][
        "files"
    ]
    assert entry["licence"] == "CC0-1.0"
    assert entry["source"]["url"] == "https://example.org/a.jsonl"
    assert entry["version"] == {"etag": '"1"'}
    assert Path(entry["path"]).name == "a.jsonl"
