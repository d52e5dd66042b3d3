from stages.core.artifact_root import artifact_root


def test_artifacts_lie_where_the_user_says_or_beside_the_database(tmp_path, monkeypatch):
    monkeypatch.setenv("RLHF_DATA_ROOT", str(tmp_path))
    monkeypatch.delenv("MLFLOW_ARTIFACTS_DESTINATION", raising=False)
    default = str(tmp_path / "mlflow" / "artifacts")
    assert artifact_root(f"sqlite:///{tmp_path}/mlflow/mlflow.db") == default
    assert artifact_root("postgresql+psycopg2://me:word@db/mlflow") == default
    assert artifact_root("sqlite:////else/where.db?timeout=9") == "/else/artifacts"
    monkeypatch.setenv("MLFLOW_ARTIFACTS_DESTINATION", "s3://bucket/folder/")
    assert artifact_root(f"sqlite:///{tmp_path}/x.db") == "s3://bucket/folder"
