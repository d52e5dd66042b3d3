"""What a look at the repository itself must find."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
TOP_LEVEL = {
    ".ci", ".dockerignore", ".gitignore", "CHANGELOG.md", "LICENSE", "Makefile", "README.md",
    "data", "docker-compose.yml", "flows", "prefect.yaml", "pyproject.toml", "requirements.lock",
    "stages", "tests",
}  # fmt: skip
MAX_FILE_BYTES = 1_200_000
PYPROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())


def tracked():
    """The files that git tracks, and those that it would with the next ``git add``."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git checkout")
    return [path for path in done.stdout.splitlines() if (CHECKOUT / path).exists()]


def stage_modules():
    """Every module or package under ``stages`` that is a stage."""
    return sorted(
        path.stem
        for path in (CHECKOUT / "stages").iterdir()
        if path.stem not in ("core", "__init__", "__main__", "__pycache__")
        and (path.suffix == ".py" or (path / "__init__.py").exists())
    )


def test_the_top_level_holds_nothing_new_by_accident():
    assert {path.split("/")[0] for path in tracked()} <= TOP_LEVEL


def test_only_readme_and_samples_are_tracked_of_the_data():
    data = [path for path in tracked() if path.startswith("data/")]
    assert "data/README.md" in data
    assert not [
        path for path in data if path != "data/README.md" and not path.startswith("data/samples/")
    ]


def test_no_file_is_large():
    sizes = {path: (CHECKOUT / path).stat().st_size for path in tracked()}
    assert not {path: size for path, size in sizes.items() if size > MAX_FILE_BYTES}


def test_no_drawer_for_things_without_a_place():
    assert not [path for path in tracked() if Path(path).name in ("utils.py", "helpers.py")]


def test_the_import_rules_name_every_stage():
    contracts = PYPROJECT["tool"]["importlinter"]["contracts"]
    stages = {f"stages.{name}" for name in stage_modules()}
    assert len(stages) >= 9
    (independence,) = [item for item in contracts if item["type"] == "independence"]
    assert set(independence["modules"]) == stages
    (flows,) = [item for item in contracts if "torch" in item.get("forbidden_modules", ())]
    assert flows["source_modules"] == ["flows"]
    assert stages <= set(flows["forbidden_modules"])


@pytest.mark.parametrize("name", stage_modules())
def test_every_stage_has_run_and_a_configuration(name):
    path = CHECKOUT / "stages" / name
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    source = path.read_text()
    assert re.search(r"^def run\($|^from \S+ import .*\brun\b", source, re.MULTILINE), path
    from stages.core import config

    stages = {getattr(item, "stage", "") for item in vars(config).values()}
    assert name in stages


def test_what_flows_import_is_free_of_torch():
    code = (
        "import sys, importlib\n"
        "for name in 'config artifacts errors launch schemas sources rejects tracking'.split():\n"
        "    importlib.import_module(f'stages.core.{name}')\n"
        "print([name for name in ('torch', 'transformers', 'prefect') if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]", done.stderr


def lock_entries():
    lines = (CHECKOUT / "requirements.lock").read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def test_installed_versions_are_those_of_the_lock():
    entries = lock_entries()
    assert len(entries) > 100
    wrong = {}
    for name, locked in entries.items():
        try:
            installed = version(name)
        except PackageNotFoundError:
            installed = "none"
        if installed.split("+")[0] != locked:  # 2.13.0+cpu is a build of 2.13.0
            wrong[name] = f"{installed} instead of {locked}"
    assert not wrong


def test_every_direct_dependency_is_locked_and_says_why():
    locked = {re.sub(r"[-_.]+", "-", name).lower() for name in lock_entries()}
    block = (CHECKOUT / "pyproject.toml").read_text().split("\ndependencies = [")[1].split("\n]")[0]
    for line in block.strip().splitlines():
        name = re.match(r'\s*"([A-Za-z0-9_.-]+)', line).group(1)
        assert re.sub(r"[-_.]+", "-", name).lower() in locked, name
        assert "#" in line, f"{name}: no reason given"


def test_every_make_target_of_the_readme_exists():
    readme = CHECKOUT / "README.md"
    assert readme.exists(), "there is no README.md"
    text = readme.read_text(encoding="utf-8")
    named = set(re.findall(r"(?:`|^\s*\$?\s*)make ([a-z][a-z-]*)", text, re.MULTILINE))
    makefile = (CHECKOUT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))
    assert {"demo", "test"} <= named, "README.md names neither make demo nor make test"
    assert named <= targets


def test_every_relative_link_of_the_readme_leads_somewhere():
    readme = CHECKOUT / "README.md"
    assert readme.exists(), "there is no README.md"
    for target in re.findall(r"\]\(([^)#\s]+)", readme.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (CHECKOUT / target).exists(), target


def test_tests_mirror_the_source_by_name():
    """Each module of stages.core has a test file of its name."""
    missing = [
        f"tests/stages/core/test_{path.stem}.py"
        for path in (CHECKOUT / "stages" / "core").glob("[a-z]*.py")
        if path.stem not in ("errors", "rejects", "sources")  # through test_collect and test_clean
        and not (CHECKOUT / f"tests/stages/core/test_{path.stem}.py").exists()
    ]
    assert not missing
