"""What a user does with mouse and keyboard in the UIs of Prefect and MLflow."""

import contextlib
import time

import psutil
import pytest

from flows.profiles import override

pytestmark = pytest.mark.slow

KILL_SECONDS = 10.0
SUBMIT = "//button[normalize-space()='Submit']"
MENU = "//main//button[@aria-haspopup='menu']"


@pytest.fixture(scope="module")
def waiting_run(stack, tiny, as_parameter):
    """A run that will ask before PPO and before promotion; its stages run while other tests look
    elsewhere."""
    own_data = {"collect.documents.max_records": 40}  # else another run would reuse its results
    asking = {
        "profile": "question",
        "approval.before_ppo": "ask",
        "approval.promotion": "ask",
        "evaluate.compare_champion": False,  # that one has no model here
        "ppo.guard.action": "raise_kl",
    }
    config = override(tiny, own_data | asking)
    return stack.start("align/smollm2", config=as_parameter(config))


def menu(page, item):
    page.click(f"({MENU})[1]")
    page.click(f"//*[@role='menuitem'][contains(., '{item}')]")


def submit(page, waits):
    """Send the form; again after "Unknown error", when the server's database was locked."""
    for _ in range(4):
        page.find(SUBMIT).send_keys("\n")
        with contextlib.suppress(AssertionError):
            waits(lambda: "/run" not in page.driver.current_url, "the next page", 15.0)
            return
    raise AssertionError(page.text())


def answer(stack, page, run, fill):
    """Answer a suspended run's question with what ``fill`` does; again where it stays suspended,
    when the server's database was locked."""
    for _ in range(4):
        page.open(f"{stack.prefect}/v2/runs/flow-run/{run}")
        page.see("Suspended")
        menu(page, "Resume")
        fill()
        page.click("//*[@role='dialog']//button[normalize-space()='Resume']")
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if stack.state(run) != "Suspended":
                page.leave()
                return
            time.sleep(0.25)
    raise AssertionError(stack.story(run) + page.text())


def stage_processes(stack):
    """The processes of stages below the stack's data root, and their children."""
    found = []
    for process in psutil.process_iter():
        try:
            command = process.cmdline()
            if "stages" in command and any(str(stack.root) in part for part in command):
                found += [process, *process.children(recursive=True)]
        except psutil.Error:
            continue
    return found


def alive(process):
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_run_is_started_from_the_form(stack, page, waits, waiting_run):
    page.open(f"{stack.prefect}/v2/deployments?limit=50")
    text = page.see("cpu-demo", "tiny", "retrain", "reward-model", "promote")
    assert "1 schedules" in text
    page.shot("deployments")
    page.click("//a[normalize-space()='cpu-demo']")
    page.click("//button[normalize-space()='Run']")
    page.click("//*[@role='menuitem'][contains(., 'Custom run')]")
    page.see("Settings (Optional)", "Name of the run's MLflow experiment.", "Until stage")
    assert page.field("Vocab size").get_attribute("value") == "1024"

    page.type(page.field("Micro batch size"), "0")
    page.find(SUBMIT).send_keys("\n")
    refusal = waits(
        lambda: page.field("Micro batch size").get_property("validationMessage"), "a refusal"
    )
    assert "greater than or equal to 1" in refusal
    page.shot("form refuses")

    page.type(page.field("Micro batch size"), "8")
    page.type(page.field("Seed"), "7")
    page.choose(page.field("Device"), "cpu")
    page.choose(page.field("Until stage"), "tokenizer")
    page.shot("form filled in")
    submit(page, waits)
    created = waits(
        lambda: stack.api("/flow_runs/filter", {"flow_runs": _by_hand("cpu-demo")}), "the run"
    )
    run, parameters = created[0]["id"], created[0]["parameters"]
    assert parameters["config"]["seed"] == 7
    assert parameters["config"]["compute"]["micro_batch_size"] == 8
    assert parameters["until_stage"] == "tokenizer"

    page.open(f"{stack.prefect}/v2/runs/flow-run/{run}")
    page.see("clean: started")
    assert stack.state(run) == "Running"  # its log is there before its end
    page.shot("run in progress")
    page.leave()
    stack.wait_for_state(run, "Completed")
    nodes = waits(lambda: _nodes(stack, run, 3), "the stages' states, which come as events")
    assert [node["label"] for _, node in nodes] == ["collect", "clean", "tokenizer"]
    names = {node["id"]: node["label"] for _, node in nodes}
    parents = [{names[parent["id"]] for parent in node["parents"]} for _, node in nodes]
    assert parents == [set(), {"collect"}, {"clean"}]
    page.open(f"{stack.prefect}/v2/runs/flow-run/{run}")  # it counts task runs while it runs only
    page.see("cpu-demo seed 7", "Completed", "3 Task runs")
    assert page.find("//main//canvas")
    page.click("//button[@role='tab'][normalize-space()='Artifacts']")
    page.see("mlflow-run")
    page.shot("run completed")


def _nodes(stack, run, number):
    nodes = stack.api(f"/flow_runs/{run}/graph-v2")["nodes"]
    return nodes if len(nodes) == number else None


def _by_hand(deployment):
    return {"tags": {"all_": [deployment]}, "state": {"type": {"not_any_": ["SCHEDULED"]}}}


def test_a_schedule_shows_its_next_runs(stack, page):
    deployment = stack.api("/deployments/name/retrain/tiny")["id"]
    page.open(f"{stack.prefect}/v2/deployments/deployment/{deployment}?tab=Upcoming")
    text = page.see("At 04:00 AM, only on Sunday", "3 Flow runs")
    assert text.count("04:00:00 AM") == 3
    page.shot("schedule")


def test_a_person_promotes_a_policy(stack, page):
    run = stack.start("promote/on-cpu")
    stack.wait_for_state(run, "Suspended")

    def fill():
        page.see("rlhf-policy", "beats SFT", "wins 71 %", "Decision")
        page.choose(page.field("Decision"), "promote")
        page.type(page.field("Comment"), "reads well")
        page.shot("promotion form")

    answer(stack, page, run, fill)
    stack.wait_for_state(run, "Completed")

    page.open(f"{stack.mlflow}/#/models/rlhf-policy/versions/1")
    page.see("champion", "challenger", "reads well", "policy/oracle")
    page.shot("model version")


def test_an_answer_that_is_not_allowed_is_asked_for_again(stack, page, waits, waiting_run):
    stack.wait_for_state(waiting_run, "Suspended")
    process = stack.api(f"/flow_runs/{waiting_run}")["labels"]["rlhf.process"].split(" ")[1]
    waits(lambda: not psutil.pid_exists(int(process)), "the end of the suspended run's process")
    assert stack.tracked("question")["question seed 0"]["info"]["status"] == "SCHEDULED"

    def answer_by_api(kl_coef):
        given = {"decision": "start PPO", "kl_coef": kl_coef, "comment": ""}
        stack.api(f"/flow_runs/{waiting_run}/resume", {"run_input": given})

    answer_by_api(-1)
    assert stack.state(waiting_run) == "Suspended"  # the form's own limit
    answer_by_api(0)  # the form does not know that the guard raises this one
    stack.wait_for_state(waiting_run, "Running")
    stack.wait_for_state(waiting_run, "Suspended")

    def fill():
        page.see("The last answer was refused", "kl_coef, which is 0", "accuracy")
        page.type(page.field("KL coef"), "0.4")
        page.shot("question before PPO")

    answer(stack, page, waiting_run, fill)
    stack.wait_for_state(waiting_run, "Running")


def test_an_evaluated_policy_becomes_champion_and_the_last_one_comes_back(
    stack, page, waits, waiting_run
):
    stack.wait_for_state(waiting_run, "Suspended")
    params = stack.tracked("question")["ppo"]["data"]["params"]
    assert {"key": "kl_coef", "value": "0.4"} in params

    def fill():
        page.see("What is asked of a champion", "Decision")
        page.choose(page.field("Decision"), "promote")
        page.type(page.field("Comment"), "wins on what we care for")
        page.shot("promotion of an evaluated policy")

    answer(stack, page, waiting_run, fill)
    stack.wait_for_state(waiting_run, "Completed")
    page.open(f"{stack.mlflow}/#/models/rlhf-policy/versions/2")
    page.see("champion", "wins on what we care for", "gate")
    page.shot("champion")
    assert stack.aliases() == {"champion": "2", "challenger": "2", "previous": "1"}
    stack.command("rollback")
    assert stack.aliases() == {"champion": "1", "challenger": "2", "previous": "2"}


def test_a_cancelled_run_ends_with_its_processes(stack, page, tiny, waits, as_parameter):
    steps = {f"pretrain.{name}": 5000 for name in ("max_steps", "eval_steps", "save_steps")}
    config = as_parameter(override(tiny, {"profile": "cancelled", **steps}))
    run = stack.start("align/cpu-demo", config=config, until_stage="pretrain")
    # By the log's lines, not the page's, which shows only those that fit.
    waits(lambda: "step 10" in stack.story(run), "pretrain's first steps")
    page.open(f"{stack.prefect}/v2/runs/flow-run/{run}")
    page.see("Running")
    page.shot("pretrain in progress")
    processes = stage_processes(stack)
    assert processes
    menu(page, "Cancel")
    page.click("//button[normalize-space()='Cancel Flow Run']")
    clicked = time.monotonic()
    waits(lambda: not any(map(alive, processes)), "the stage's end")
    assert time.monotonic() - clicked < KILL_SECONDS
    waits(lambda: stack.state(run) == "Cancelled", "Cancelled")
    page.see("Cancelled")
    page.shot("cancelled")
    tracked = stack.tracked("cancelled")
    assert tracked["cancelled seed 0"]["info"]["status"] == "KILLED"
    assert tracked["pretrain"]["info"]["status"] == "KILLED"


def test_mlflow_shows_the_run(stack, page):
    tracked = stack.tracked("question")
    parent = tracked["question seed 0"]["info"]
    experiment = f"{stack.mlflow}/#/experiments/{parent['experiment_id']}"
    machine_learning = "workflowType=machine_learning"
    page.open(f"{experiment}/runs?{machine_learning}")
    page.see("question seed 0", "10 matching runs")
    page.click("//button[contains(@data-component-id, 'runnamecellrenderer')]")  # its [+]
    page.see("reward_model", "tokenizer")
    page.shot("mlflow runs")
    page.open(f"{experiment}/runs/{parent['run_id']}?{machine_learning}")
    page.see("Child runs", "Prefect flow run", "ppo.kl_coef")
    page.shot("mlflow pipeline run")
    ppo = f"{experiment}/runs/{tracked['ppo']['info']['run_id']}"
    page.open(f"{ppo}/model-metrics?{machine_learning}")
    page.see("objective/kl")
    page.shot("mlflow curves")
    page.open(f"{ppo}/artifacts?{machine_learning}")
    page.see("samples")
    page.shot("mlflow artifacts")
