"""A file is never loaded as a whole."""

import json
import subprocess
import sys

PEAK = """
import resource, sys
from stages.core.data_check import check_files
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
check_files([sys.argv[1]])
before = peak()
report = check_files([sys.argv[2]])
print(report.records, peak() - before)
"""


def test_memory_does_not_grow_with_the_file(tmp_path):
    """From 25 to 200 MB, and 11,000 to 90,000 records; one line of 60 MB is among them."""
    text = "Once upon a time there was a sentence of ten words. " * 20
    paths = [tmp_path / "small.jsonl", tmp_path / "large.jsonl"]
    for path, count in zip(paths, (11_000, 90_000), strict=True):
        with path.open("w") as file:
            for number in range(count):
                record = {"prompt": f"{number}: {text}", "completion": f"{text}{number}"}
                file.write(json.dumps(record) + "\n")
    with paths[1].open("a") as file:
        file.write('{"prompt": "' + "x" * 60_000_000 + '"}\n' + json.dumps({"prompt": "a"}) + "\n")
    done = subprocess.run(
        [sys.executable, "-c", PEAK, *map(str, paths)], capture_output=True, text=True, check=True
    )
    records, growth = map(int, done.stdout.split())
    assert records == 90_002
    assert growth < 60, f"{growth} MB"
