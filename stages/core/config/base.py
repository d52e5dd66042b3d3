"""The base of all configurations, and where a stage runs."""

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from stages.core.form import complete_schema, field_title, section_title

Share = Annotated[float, Field(ge=0, le=1)]

Positive = Annotated[float, Field(gt=0)]

PositiveInt = Annotated[int, Field(ge=1)]

Count = Annotated[int, Field(ge=0)]


class Frozen(BaseModel):
    """Immutable, and a misspelt key is an error."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        model_title_generator=section_title,
        field_title_generator=field_title,
        json_schema_extra=complete_schema,
    )


class StageConfig(Frozen):
    """Base of the stage configurations. ``version`` is bumped when a stage's behaviour changes, so
    that results of the old behaviour are not reused."""

    stage: ClassVar[str] = ""
    module: ClassVar[str] = ""
    """Module below ``stages`` where it differs from the stage's name."""
    version: ClassVar[int] = 1


class Compute(Frozen):
    """Where a stage runs. Recorded beside the result, but not part of its key: the global batch is
    fixed by the stage's configuration and the accumulation follows from the micro batch."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of the training stages; auto takes a GPU when there is one."""
    num_processes: PositiveInt = 1
    """Ranks of a training stage; more than 1 needs as many GPUs."""
    micro_batch_size: PositiveInt = 16
    """Sequences that go through a model at once; lower it when memory runs out."""
    num_threads: Count = 0
    """CPU threads of a stage; 0 takes all cores."""
    ray_address: str = ""
    """A Ray cluster on which cleaning runs (host:port, or auto); empty: processes on this machine.
    """
