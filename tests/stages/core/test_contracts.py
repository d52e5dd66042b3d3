"""What stages pass on: the same after a trip through JSON, which is how it reaches a process."""

from stages.core import contracts
from stages.core.artifacts import Artifact


def test_an_artifact_in_inputs_survives_json():
    inputs = contracts.CleanInputs(
        datasets=contracts.Datasets(sft=Artifact(kind="sft", path="x", digest="y"))
    )
    assert contracts.CleanInputs.model_validate_json(inputs.model_dump_json()) == inputs
