import os
import subprocess
import sys
from pathlib import Path

import pytest

from flows import environment
from stages.core.errors import UserError


@pytest.fixture(autouse=True)
def _own_variables(data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", os.environ.copy())
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        del os.environ[name]


def test_telemetry_and_pickled_models_are_off_whatever_the_user_set() -> None:
    os.environ.update(DO_NOT_TRACK="0", MLFLOW_ALLOW_PICKLE_DESERIALIZATION="true")
    environment.prepare()
    assert os.environ["DO_NOT_TRACK"] == "1"
    assert os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"


@pytest.mark.slow
def test_the_libraries_know_the_variables_and_are_silent() -> None:
    code = (
        "from flows import environment; environment.prepare()\n"
        "from prefect._internal.analytics.enabled import is_telemetry_enabled\n"
        "from prefect.settings import get_current_settings\n"
        "from mlflow.telemetry.utils import is_telemetry_disabled\n"
        "from mlflow.environment_variables import (\n"
        "    MLFLOW_ALLOW_PICKLE_DESERIALIZATION, MLFLOW_MODEL_CATALOG_URI)\n"
        "from huggingface_hub import constants\n"
        "settings = get_current_settings().server\n"
        "print(is_telemetry_enabled(), settings.analytics_enabled,\n"
        "    settings.ui.show_promotional_content, not is_telemetry_disabled(),\n"
        "    MLFLOW_ALLOW_PICKLE_DESERIALIZATION.get(), bool(MLFLOW_MODEL_CATALOG_URI.get()),\n"
        "    not constants.HF_HUB_DISABLE_TELEMETRY)"
    )
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in environment.NO_TELEMETRY and name not in environment.SAFETY
    }
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=environment.CHECKOUT,
        env=kept,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["False"] * 7, done.stderr


def test_clients_know_the_password_of_servers_started_here() -> None:
    os.environ["PREFECT_SERVER_API_AUTH_STRING"] = "me:word"
    environment.prepare()
    assert os.environ["PREFECT_API_AUTH_STRING"] == "me:word"


def test_a_server_elsewhere_has_a_password_of_its_own() -> None:
    os.environ.update(
        PREFECT_SERVER_API_AUTH_STRING="me:word",
        PREFECT_API_AUTH_STRING="me:other",
        PREFECT_API_URL="http://elsewhere.example/api",
    )
    environment.prepare()
    assert os.environ["PREFECT_API_AUTH_STRING"] == "me:other"


def test_an_empty_password_is_none() -> None:
    os.environ["PREFECT_SERVER_API_AUTH_STRING"] = ""
    environment.prepare()
    assert "PREFECT_SERVER_API_AUTH_STRING" not in os.environ
    assert "PREFECT_API_AUTH_STRING" not in os.environ


def test_a_data_root_that_cannot_be_made_is_named(data_root: Path) -> None:
    (data_root / "file").write_text("", encoding="utf-8")
    os.environ["RLHF_DATA_ROOT"] = str(data_root / "file")
    with pytest.raises(UserError, match="Not a directory; correct the permissions, or set RLHF"):
        environment.prepare()


def test_a_gpu_is_known_by_its_driver(tmp_path: Path) -> None:
    program = tmp_path / "nvidia-smi"
    os.environ["PATH"] = str(tmp_path)
    if not Path("/proc/driver/nvidia/version").exists():
        assert not environment.has_gpu_driver()
        program.write_text("#!/bin/sh\nexit 9\n")
        program.chmod(0o700)
        assert not environment.has_gpu_driver()
    program.write_text("#!/bin/sh\necho GPU 0: one\n")
    program.chmod(0o700)
    assert environment.has_gpu_driver()
