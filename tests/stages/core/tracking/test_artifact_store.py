"""Runs beside a server, before and after it, share their artifacts with those on other machines."""

import pytest

from stages.core import tracking
from stages.core.config import PipelineConfig
from stages.core.tracking.client import PatientClient


def _store(name: str) -> tuple[str, str]:
    """A run of the experiment ``demo`` with one artifact; its id, and the experiment's."""
    run_id = tracking.start_pipeline_run(PipelineConfig(profile="demo"), name)
    client = PatientClient()
    client.log_dict(run_id, {"of": name}, "stage/file.json")
    return run_id, client.get_run(run_id).info.experiment_id


def _stored(run_id: str, folder) -> str:
    path = PatientClient().download_artifacts(run_id, "stage/file.json", str(folder))
    with open(path, encoding="utf-8") as file:
        return file.read()


@pytest.mark.slow
@pytest.mark.parametrize("served_first", [True, False])
def test_all_runs_of_an_experiment_have_one_store(
    served_first, mlflow_server, tmp_path, monkeypatch
):
    server = tracking.set_up()
    here = f"sqlite:///{tmp_path / 'mlflow' / 'mlflow.db'}"
    runs = {}
    for uri in (server, here) if served_first else (here, server):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        # Another machine has another data root.
        root = tmp_path / "elsewhere" if uri == server else tmp_path
        monkeypatch.setenv("RLHF_DATA_ROOT", str(root))
        runs[uri] = _store(uri)
    assert len({experiment for _, experiment in runs.values()}) == 1
    for reader in (server, here):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", reader)
        for maker, (run_id, _) in runs.items():
            folder = tmp_path / f"read-{len(list(tmp_path.iterdir()))}"
            folder.mkdir()
            assert maker in _stored(run_id, folder)
    found = list((tmp_path / "mlflow" / "artifacts").rglob("file.json"))
    assert len(found) == 2
    assert not (tmp_path / "elsewhere" / "mlflow" / "artifacts").exists()
