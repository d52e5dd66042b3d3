"""A file is never loaded as a whole."""

import json
import subprocess
import sys

PEAK = """
import sys
from stages.core.data_check import check_files
def peak():  # of this process; getrusage's begins with the parent's
    (line,) = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
    return int(line.split()[1]) // 1024
check_files([sys.argv[1]])
before = peak()
report = check_files([sys.argv[2]])
print(report.records, peak() - before)
"""


def test_memory_does_not_grow_with_the_file(tmp_path):
    """From 22 to 80 MB, and 10,000 to 36,000 records; one line of 40 MB is among them."""
    text = "Once upon a time there was a sentence of ten words. " * 20
    paths = [tmp_path / "small.jsonl", tmp_path / "large.jsonl"]
    for path, count in zip(paths, (10_000, 36_000), strict=True):
        with path.open("w") as file:
            for number in range(count):
                record = {"prompt": f"{number}: {text}", "completion": f"{text}{number}"}
                file.write(json.dumps(record) + "\n")
    with paths[1].open("a") as file:
        file.write('{"prompt": "' + "x" * 40_000_000 + '"}\n' + json.dumps({"prompt": "a"}) + "\n")
    done = subprocess.run(
        [sys.executable, "-c", PEAK, *map(str, paths)], capture_output=True, text=True, check=True
    )
    records, growth = map(int, done.stdout.split())
    assert records == 36_002
    assert growth < 30, f"{growth} MB"
