import platform
from concurrent.futures import ThreadPoolExecutor

from stages.core.machine import machine


def test_a_data_root_keeps_its_name_and_another_one_has_another(tmp_path, monkeypatch):
    names = []
    for root in ("one", "one", "two"):
        monkeypatch.setenv("RLHF_DATA_ROOT", str(tmp_path / root))
        names.append(machine())
    assert names[0] == names[1] != names[2]
    assert all(name.startswith(f"{platform.node()}-") for name in names)


def test_processes_that_ask_at_once_get_one_name(tmp_path, monkeypatch):
    monkeypatch.setenv("RLHF_DATA_ROOT", str(tmp_path))
    with ThreadPoolExecutor(8) as threads:
        names = set(threads.map(lambda _: machine(), range(32)))
    assert len(names) == 1
