"""What ends a run expectedly is one line on its page, not a traceback."""

import functools
import logging
from collections.abc import Callable
from typing import Any, ParamSpec

from prefect.logging import get_run_logger
from prefect.states import Failed

from stages.core.errors import StageCrashedError, UserError

Arguments = ParamSpec("Arguments")


def refusals_as_states(function: Callable[Arguments, Any]) -> Callable[Arguments, Any]:
    """The body of a flow, with a refusal or a stage's crash as the failed state that it ends in.

    Who calls the flow gets the error itself.
    """

    @functools.wraps(function)
    def refusing(*arguments: Arguments.args, **named: Arguments.kwargs) -> Any:
        try:
            return function(*arguments, **named)
        except (UserError, StageCrashedError) as error:
            return refused(error)

    return refusing


def _is_unexpected(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, UserError | StageCrashedError)


# The engine reports what a deployed run ends with once more, with its traceback.
logging.getLogger("prefect.flow_runs").addFilter(_is_unexpected)


def refused(error: UserError | StageCrashedError) -> Any:
    """The failed state of a run or task that ends with ``error``."""
    get_run_logger().error(str(error))
    return Failed(message=str(error), data=error)
