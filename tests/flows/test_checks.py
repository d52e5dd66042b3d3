import importlib.metadata
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from flows import checks
from flows.checks import BAD, GOOD, NOTE


def test_this_installation_fits() -> None:
    assert checks.python_version().mark == GOOD
    assert checks.packages() == (GOOD, "Packages", "fit each other", "")


def test_a_python_that_is_too_old_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks.sys, "version_info", (3, 10, 4))
    mark, _, text, cure = checks.python_version()
    assert (mark, text, cure) == (BAD, "3.10.4, needs >=3.11", "make PYTHON=python3.12")


def test_a_version_that_clashes_is_named_with_who_asks_for_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    versions = {"fastapi": "0.165.0", "starlette": "0.1"}
    installed = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: versions.get(name) or installed(name)
    )
    mark, _, text, cure = checks.packages()
    assert mark == BAD
    assert "fastapi 0.165.0, this project needs ==0.150.0" in text
    assert "starlette 0.1, fastapi needs " in text
    assert "requirements.lock" in cure


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = importlib.metadata.version

    def version(name: str) -> str:
        if name == "peft":
            raise importlib.metadata.PackageNotFoundError(name)
        return installed(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert "peft is missing, this project needs it" in checks.packages().text


def test_an_import_that_fails_says_how() -> None:
    found = checks._imports("Prefect", "raise TypeError('unexpected keyword min_items')")
    assert (found.mark, found.text) == (BAD, "TypeError: unexpected keyword min_items")
    assert checks._imports("Prefect", "pass").mark == GOOD


def test_a_process_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "IMPORT_TIMEOUT_SECONDS", 0.1)
    found = checks._imports("MLflow", "import time; time.sleep(60)")
    assert (found.mark, found.text) == (BAD, "no answer within 0 s")


@pytest.mark.slow
def test_the_servers_of_this_installation_can_be_imported() -> None:
    assert checks.prefect_server().mark == GOOD
    assert checks.mlflow().mark == GOOD


@pytest.mark.parametrize(
    ("code", "output", "mark", "text"),
    [
        (0, "adapter=0.0e+00 effect=1.0e-01", GOOD, "comes back as it was"),
        (1, "adapter=1.9e-01 effect=1.0e-01", BAD, "comes back changed: adapter=1.9e-01"),
    ],
)
def test_an_adapter_that_changes_is_bad(
    monkeypatch: pytest.MonkeyPatch, code: int, output: str, mark: str, text: str
) -> None:
    done = subprocess.CompletedProcess([], code, output, "a warning")
    monkeypatch.setattr(checks, "run_python", lambda *arguments: done)
    found = checks.lora()
    assert found.mark == mark
    assert text in found.text


def test_a_driver_that_torch_does_not_see_is_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "has_gpu_driver", lambda: False)
    assert checks.gpu().mark == NOTE
    monkeypatch.setattr(checks, "has_gpu_driver", lambda: True)
    error = "Traceback\nAssertionError: torch 2.13.0+cpu does not see it\n"
    done = subprocess.CompletedProcess([], 1, "", error)
    monkeypatch.setattr(checks, "run_python", lambda *arguments: done)
    assert "there is a driver, but AssertionError: torch 2.13.0+cpu" in checks.gpu().text


def test_a_data_root_that_cannot_be_written_is_bad(
    data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert checks.data_folder().mark in (GOOD, NOTE)
    assert list(data_root.iterdir()) == []
    (data_root / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("RLHF_DATA_ROOT", str(data_root / "file"))
    found = checks.data_folder()
    assert found.mark == BAD
    assert "RLHF_DATA_ROOT" in found.cure


@pytest.mark.parametrize(("free", "mark"), [(2**20, BAD), (2**31, NOTE), (2**40, GOOD)])
def test_a_disk_that_is_nearly_full_is_bad(
    data_root: Path, monkeypatch: pytest.MonkeyPatch, free: int, mark: str
) -> None:
    usage = type("Usage", (), {"free": free})
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda path: usage)
    assert checks.data_folder().mark == mark


def test_too_few_open_files_are_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit, mark in ((256, BAD), (1024, GOOD), (resource.RLIM_INFINITY, GOOD)):
        monkeypatch.setattr(checks.resource, "getrlimit", lambda which, limit=limit: (limit, 0))
        assert checks.open_files().mark == mark


def test_an_unknown_time_zone_is_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    assert checks.time_zone().mark == GOOD
    monkeypatch.setenv("TZ", "Europe/Brelin")
    assert checks.time_zone().text == "TZ=Europe/Brelin is unknown"


def test_the_last_line_says_what_went_wrong() -> None:
    output = "Traceback\nOperationalError: no route\n(Background: https://sqlalche.me/e/20)\n\n"
    assert checks.last_line(output) == "OperationalError: no route"
    assert checks.last_line("\n") == "no output"


def test_nothing_heavy_is_imported_for_it() -> None:
    code = (
        "import sys; from flows import doctor\n"
        "print([name for name in ('torch', 'prefect', 'mlflow') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=checks.CHECKOUT, capture_output=True, text=True
    )
    assert done.stdout == "[]\n", done.stderr
