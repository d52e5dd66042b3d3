"""An MLflow that has not what is needed."""

import http.server
import threading

import pytest

from stages.core import tracking
from stages.core.errors import UserError
from stages.core.tracking.reviews.api import look_up


@pytest.mark.parametrize(
    "needed",
    [
        {"mlflow.genai.review_queues:open_queue": ()},
        {"mlflow.genai.annotation:open_queue": ()},
        {"mlflow.genai.review_queues:create_review_queue": ("name", "title")},
    ],
)
def test_what_is_missing_is_said_in_one_line(needed, client):
    with pytest.raises(UserError) as caught:
        look_up(needed)
    line = str(caught.value)
    assert "has no review queues as 3.17.2 had them" in line
    assert "install mlflow==3.17.2" in line
    assert "\n" not in line


def test_a_server_without_review_queues_is_told_from_one_that_is_away(monkeypatch):
    class Old(http.server.BaseHTTPRequestHandler):
        """A server that knows experiments and nothing else."""

        def do_GET(self):
            known = "experiments/get-by-name" in self.path
            body = b'{"experiment": {"experiment_id": "1", "lifecycle_stage": "active"}}'
            self.send_response(200 if known else 404)
            self.end_headers()
            self.wfile.write(body if known else b"Not Found")

        def do_POST(self):
            self.do_GET()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Old)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.server_address[1]}")
    try:
        with pytest.raises(UserError, match="has no review queues as"):
            tracking.judgments("feedback")
    finally:
        server.shutdown()
        server.server_close()
