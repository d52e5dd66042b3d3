"""What the tests of both UIs share: servers, deployments and a worker, and a browser."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.profiles import cpu_demo, override
from stages.core.config import PipelineConfig
from tests.e2e.browser import PROGRAMS, Page, browser, wait
from tests.e2e.stack import Stack, python, running_stack

REGISTER = """
import sys
from pathlib import Path
from flows.profiles import cpu_demo
from stages.core import tracking
run = tracking.start_pipeline_run(cpu_demo(), "cpu-demo seed 0", "", "")
tracking.register_policy(run, Path(sys.argv[1]), {"policy/oracle": "0.58", "parent_run": run,
    "gate": "passed", "gate_table": "| rule | figure |\\n|---|---|\\n| beats SFT | wins 71 % |"})
tracking.end_pipeline_run(run, "FINISHED", {"policy/oracle": 0.58})
"""


@pytest.fixture(scope="module")
def chromium() -> None:
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        message = f"{', '.join(missing)}: not installed; apt-get install chromium chromium-driver"
        if os.environ.get("RLHF_REQUIRE_SYSTEM_PACKAGES"):
            pytest.fail(message)
        pytest.skip(message)


@pytest.fixture(scope="module")
def tiny() -> PipelineConfig:
    """The demo with so little data and so few steps that each stage mostly starts and ends."""
    few = {"max_records": 48, "max_held_out_records": 16}
    data = {
        f"collect.{kind}.{name}": number
        for kind in ("documents", "sft", "preferences", "prompts")
        for name, number in few.items()
    }
    settings = {
        "profile": "tiny",
        "clean.guard_share": 0.0,
        "collect.labelled.paths": [],
        "collect.labelled.held_out_paths": [],
        "reward_model_card.gate.action": "warn",
        "evaluate.gate.action": "warn",
        "tokenizer.vocab_size": 400,
        "pretrain.max_steps": 2,
        "sft.num_epochs": 0.1,
        "sft.max_over_length_share": 1.0,
        "reward_model.num_epochs": 0.1,
        "reward_model.max_over_length_share": 1.0,
        "reward_model.num_statistics_samples": 8,
        "ppo.total_episodes": 8,
        "ppo.batch_size": 8,
        "ppo.max_over_length_share": 1.0,
        "ppo.max_completion_length": 8,
    }
    return override(cpu_demo(), data | settings)


@pytest.fixture(scope="module")
def stack(
    chromium: None, tiny: PipelineConfig, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """Servers, deployments, a worker of the pool cpu, and a registered policy."""
    root = tmp_path_factory.mktemp("stack")
    (root / "tiny.json").write_text(tiny.model_dump_json(), encoding="utf-8")
    (root / "policy").mkdir()
    (root / "policy" / "adapter_config.json").write_text("{}", encoding="utf-8")
    weekly = ["--name", "tiny", "--cron", "0 4 * * 0", "--config", str(root / "tiny.json")]
    with running_stack(root, weekly) as running:
        python(["-c", REGISTER, str(root / "policy")], running.environment)
        yield running


# -------------------------------------------------------------------------------------- browser


@pytest.fixture(scope="module")
def page(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    folders = [tmp_path_factory.mktemp("screenshots")]
    if os.environ.get("RLHF_SCREENSHOTS"):
        folders.append(Path(os.environ["RLHF_SCREENSHOTS"]))
        folders[-1].mkdir(parents=True, exist_ok=True)
    with browser(tmp_path_factory.mktemp("chromium"), folders) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _no_page_is_left_open(page: Page) -> Iterator[None]:
    yield
    page.leave()


@pytest.fixture(scope="module")
def waits() -> Callable[..., Any]:
    return wait


@pytest.fixture(scope="module")
def as_parameter() -> Callable[[PipelineConfig], dict[str, Any]]:
    """A configuration as the API takes it."""
    return lambda config: json.loads(config.model_dump_json())
