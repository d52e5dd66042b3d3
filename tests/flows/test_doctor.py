import io

import pytest
from rich.console import Console

from flows import doctor, server_checks
from flows.checks import BAD, GOOD, NOTE, Finding


def _report(monkeypatch: pytest.MonkeyPatch, *findings: Finding) -> tuple[int, str]:
    half = len(findings) // 2
    for name, part in (("_quick", findings[:half]), ("_slow", findings[half:])):
        made = [lambda finding=finding: finding for finding in part]
        monkeypatch.setattr(doctor, name, lambda made=made: made)
    out = io.StringIO()
    return doctor.doctor(Console(file=out, width=40)), out.getvalue()


def test_all_well_is_code_0(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Finding(GOOD, "Python", "3.12.1"), Finding(NOTE, "GPU", "none [cpu]")
    assert _report(monkeypatch, *found) == (
        0,
        "✓ Python          3.12.1\n– GPU             none [cpu]\nAll is well.\n",
    )


def test_what_is_bad_is_code_2_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Finding(GOOD, "Python", "3.12.1"), Finding(BAD, "Open files", "64", "ulimit -n 4096")
    code, text = _report(monkeypatch, *found)
    assert code == 2
    assert "✗ Open files      64\n                  → ulimit -n 4096\n1 to mend.\n" in text


def test_a_server_elsewhere_is_asked_instead_of_ports_and_files(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def looked_at() -> set[tuple[object, ...]]:
        return {(check.func, *check.args) for check in doctor._quick() if hasattr(check, "func")}

    for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "MLFLOW_BACKEND_STORE_URI"):
        monkeypatch.delenv(name, raising=False)
    here = looked_at()
    assert (server_checks.port, "Prefect", 4200) in here
    assert (server_checks.port, "MLflow", 5000) in here
    monkeypatch.setenv("PREFECT_API_URL", "http://p/api/")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://m")
    assert looked_at() == {
        (server_checks.server, "Prefect", "http://p/api"),
        (server_checks.server, "MLflow", "http://m"),
    }
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql+psycopg2://db/mlflow")
    assert (server_checks.database, "MLflow", "postgresql+psycopg2://db/mlflow") in looked_at()
