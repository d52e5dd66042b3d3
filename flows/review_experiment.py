"""The MLflow experiment that holds the review queues, for the commands that read or change it."""

import os

from flows import access

FEEDBACK = "feedback"
"""Its usual name: the default of ``FeedbackSource.experiment``."""


def check_tracking() -> None:
    """Ask the MLflow server, where there is one, before a call that would wait for it.

    Raises:
        UserError: it does not answer, or asks for another password.
    """
    if address := access.server_address(os.environ.get("MLFLOW_TRACKING_URI", "")):
        access.check_mlflow(address)
