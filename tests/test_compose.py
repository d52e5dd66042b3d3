"""What docker-compose.yml says: valid, pinned, closed, healthy, and without secrets."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.environment import NO_TELEMETRY

CHECKOUT = Path(__file__).resolve().parents[1]
FILE = CHECKOUT / "docker-compose.yml"
TEXT = FILE.read_text(encoding="utf-8")
COMPOSE = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OWN = {name: service for name, service in SERVICES.items() if "rlhf-flows" in service["image"]}
DOCKERFILE = SERVICES["prefect-server"]["build"]["dockerfile_inline"]
ONE_SHOT = {"deploy"}
SECRET = re.compile(r"PASSWORD|SECRET|AUTH_STRING|ACCESS_KEY")

every_service = pytest.mark.parametrize("name", SERVICES)


def test_the_file_follows_the_specification():
    program = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*program, str(FILE)], capture_output=True, text=True, cwd=CHECKOUT)
    assert done.returncode == 0, done.stdout + done.stderr


@every_service
def test_what_a_service_names_is_there(name):
    service = SERVICES[name]
    assert set(service.get("networks", ())) <= set(COMPOSE["networks"])
    assert {config["source"] for config in service.get("configs", ())} <= set(COMPOSE["configs"])
    mounts = [mount for mount in service.get("volumes", ()) if isinstance(mount, str)]
    assert {mount.split(":")[0] for mount in mounts} <= set(COMPOSE["volumes"])
    for needed, how in service.get("depends_on", {}).items():
        is_one_shot = how["condition"] == "service_completed_successfully"
        assert is_one_shot == (needed in ONE_SHOT)
        assert is_one_shot or "healthcheck" in SERVICES[needed]


def prefect_names() -> set[str]:
    """Every variable that the installed Prefect and its Redis integration read."""
    from prefect.settings import Settings
    from prefect_redis import client, messaging
    from pydantic import AliasChoices
    from pydantic_settings import BaseSettings

    names = set()

    def collect(model: type[BaseSettings]) -> None:
        for field, info in model.model_fields.items():
            if isinstance(info.annotation, type) and issubclass(info.annotation, BaseSettings):
                collect(info.annotation)
            elif isinstance(info.validation_alias, AliasChoices):
                choices = info.validation_alias.choices
                names.update(choice for choice in choices if isinstance(choice, str))
            else:
                names.add(f"{model.model_config['env_prefix']}{field}")

    for model in (
        Settings,
        client.RedisMessagingSettings,
        messaging.RedisMessagingConsumerSettings,
    ):
        collect(model)
    return {name.upper() for name in names}


def mlflow_names() -> set[str]:
    """Every variable that the installed MLflow reads, of its server's options too."""
    from mlflow import environment_variables
    from mlflow.cli import server

    kind = environment_variables._EnvironmentVariable
    variables = [item for item in vars(environment_variables).values() if isinstance(item, kind)]
    options = {option.envvar for option in server.params if getattr(option, "envvar", None)}
    return {variable.name for variable in variables} | options


@pytest.mark.slow  # imports both
def test_prefect_and_mlflow_know_their_variables():
    known = {"PREFECT": prefect_names(), "MLFLOW": mlflow_names()}
    unknown = {
        f"{service}: {variable}"
        for service, content in OWN.items()
        for variable in content.get("environment", {})
        if variable.split("_")[0] in known and variable not in known[variable.split("_")[0]]
    }
    assert not unknown
    assert len(known["PREFECT"]) > 200
    assert len(known["MLFLOW"]) > 100


@pytest.mark.parametrize("name", OWN)
def test_telemetry_is_off(name):
    assert NO_TELEMETRY.items() <= OWN[name]["environment"].items()


@every_service
def test_no_secret_is_in_the_file(name):
    for variable, value in SERVICES[name].get("environment", {}).items():
        if SECRET.search(variable):
            assert value is None or re.search(r"\$\{\w+:\?[^}]+\}$", value), variable
    assert not re.findall(r"\$\{\w*(?:PASSWORD|SECRET|KEY)\w*:?-", TEXT)
    assert not re.findall(r"\w+://[^\s@/]*:[^\s@/]*@", TEXT)


def test_git_ignores_the_secrets():
    if not (CHECKOUT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "check-ignore", "--quiet", ".env"]
    assert subprocess.run(command, cwd=CHECKOUT).returncode == 0


@every_service
def test_images_are_pinned(name):
    image = SERVICES[name]["image"]
    if name in OWN:  # built here, so nothing may be fetched under its name
        assert SERVICES[name]["pull_policy"] == "never"
    else:
        assert re.fullmatch(r"[a-z/]+:\d+\.\d+(\.\d+)?-[a-z]+", image), image


def test_our_image_is_built_once_from_pinned_parts():
    assert [name for name in OWN if "build" in OWN[name]] == ["prefect-server"]
    (base,) = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert re.fullmatch(r"python:3\.11\.\d+-slim-bookworm", base)
    assert "--constraint requirements.lock" in DOCKERFILE
    assert DOCKERFILE.rstrip().endswith("USER rlhf")


def test_what_the_image_copies_is_there_and_not_held_back():
    let_through = (CHECKOUT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    copied = [
        line.split()[1:-1] for line in re.findall(r"^COPY (?!<<).*$", DOCKERFILE, re.MULTILINE)
    ]
    for path in (path for paths in copied for path in paths):
        assert (CHECKOUT / path).exists(), path
        assert f"!{path}" in let_through, path


@every_service
def test_no_service_is_root_or_can_become_it(name):
    service = SERVICES[name]
    assert str(service["user"]) not in ("0", "root")
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    # Compose copies a config into the container, which a read-only one refuses.
    assert service.get("read_only", False) == ("configs" not in service)


@every_service
def test_every_service_that_stays_is_watched_and_comes_back(name):
    service = SERVICES[name]
    if name in ONE_SHOT:
        assert service["restart"].startswith("on-failure")
    else:
        assert service["restart"] == "unless-stopped"
        assert service["healthcheck"]["test"][0] == "CMD"
        assert "start_period" in service["healthcheck"]


@every_service
def test_ports_are_open_to_this_machine_only(name):
    for port in SERVICES[name].get("ports", ()):
        assert re.fullmatch(r"127\.0\.0\.1:\$\{\w+:-\d+\}:\d+", port), port


def test_workers_reach_neither_the_databases_nor_redis():
    assert COMPOSE["networks"]["back"]["internal"]
    for name in ("postgres", "redis"):
        assert SERVICES[name]["networks"] == ["back"]
        assert "ports" not in SERVICES[name]
    for name in ("deploy", "worker-cpu", "worker-gpu"):
        assert SERVICES[name]["networks"] == ["front"]


def test_the_gpu_is_optional():
    assert SERVICES["worker-gpu"]["profiles"] == ["gpu"]
    assert [name for name in SERVICES if "profiles" in SERVICES[name]] == ["worker-gpu"]
    (device,) = SERVICES["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}


def test_the_readme_names_every_variable():
    readme = (CHECKOUT / "flows/README.md").read_text(encoding="utf-8")
    variables = set(re.findall(r"\$\{(\w+):", TEXT))
    for service in SERVICES.values():
        environment = service.get("environment", {})
        variables |= {variable for variable, value in environment.items() if value is None}
    assert not {variable for variable in variables if f"`{variable}`" not in readme}
