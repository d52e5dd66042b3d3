import base64
import json
import socket
import stat
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from flows import access, servers
from flows.environment import mlflow_folder
from stages.core.errors import UserError

VARIABLES = (
    "PREFECT_SERVER_API_AUTH_STRING",
    "PREFECT_API_AUTH_STRING",
    "PREFECT_API_KEY",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
)


@pytest.fixture(autouse=True)
def _no_passwords(data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(data_root))
    mlflow_folder().mkdir()


@pytest.fixture
def guarded_server() -> Iterator[str]:
    """Address of a server that answers as both APIs do: with 401, unless asked with ``me:word``."""
    token = f"Basic {base64.b64encode(b'me:word').decode()}"

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            is_let_in = self.headers.get("Authorization") == token
            known = self.path.startswith(("/csrf-token", "/admin/version", "/api/2.0/mlflow/exp"))
            self.send_response((200 if known else 404) if is_let_in else 401)
            self.end_headers()
            self.wfile.write(json.dumps({"token": "t"}).encode())

        def log_message(self, *arguments):
            pass

    server = HTTPServer((servers.HOST, 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://{servers.HOST}:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.8.0.1", True), ("localhost", True), ("::1", True)]
    + [(host, False) for host in ("0.0.0.0", "::", "192.168.0.4", "machine.example")],
)
def test_only_loopback_needs_no_password(host: str, loopback: bool) -> None:
    assert access.is_loopback(host) is loopback
    if loopback:
        access.require_passwords(host)
        return
    with pytest.raises(UserError) as raised:
        access.require_passwords(host)
    assert "PREFECT_SERVER_API_AUTH_STRING" in str(raised.value)
    assert "MLFLOW_TRACKING_PASSWORD" in str(raised.value)
    access.require_passwords(host, prefect=False, mlflow=False)  # none is started here


def test_one_password_of_two_is_not_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_SERVER_API_AUTH_STRING", "me:word")
    with pytest.raises(UserError, match="set MLFLOW_TRACKING_USERNAME and"):
        access.require_passwords("0.0.0.0")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "twelve chars")
    access.require_passwords("0.0.0.0")


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"PREFECT_SERVER_API_AUTH_STRING": "word"}, "must be user:password"),
        ({"PREFECT_SERVER_API_AUTH_STRING": ":word"}, "must be user:password"),
        ({"MLFLOW_TRACKING_USERNAME": "me"}, "set both"),
        ({"MLFLOW_TRACKING_PASSWORD": "twelve chars"}, "set both"),
        (
            {"MLFLOW_TRACKING_USERNAME": "me", "MLFLOW_TRACKING_PASSWORD": "short"},
            "at least 12 characters",
        ),
    ],
)
def test_an_incomplete_password_is_refused_without_being_shown(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message) as raised:
        access.require_passwords("127.0.0.1")
    assert "word" not in str(raised.value).replace("user:password", "").replace("password", "")


def test_servers_know_their_own_names_only() -> None:
    rules = access.prefect_rules("127.0.0.1", 4200)
    assert rules == {
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": "http://127.0.0.1:4200,http://localhost:4200",
        "PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED": "true",
    }
    rules = access.mlflow_rules("10.1.2.3", 5000)
    assert "10.1.2.3:5000" in rules["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")
    assert "http://10.1.2.3:5000" in rules["MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"].split(",")
    assert "*" not in "".join(rules.values())
    assert access.own_name("0.0.0.0") == "127.0.0.1"
    assert "[::1]" in access.served_names("::1")


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1", "::", "localhost"])
def test_a_server_is_reached_under_a_name_that_it_serves(host: str) -> None:
    assert access.own_name(host) in access.served_names(host)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        if family == socket.AF_INET6:  # as some systems have it by default, and uvicorn always
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((host, 0))
        listener.listen()
        name = access.own_name(host).strip("[]")
        socket.create_connection((name, listener.getsockname()[1]), timeout=5).close()


def test_names_that_the_user_gives_join_the_servers_own(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": "https://proxy.example",
        "MLFLOW_SERVER_ALLOWED_HOSTS": "proxy.example, localhost",
        "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": "https://proxy.example",
    }
    own = access.prefect_rules("127.0.0.1", 4200) | access.mlflow_rules("127.0.0.1", 5000)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    rules = access.prefect_rules("127.0.0.1", 4200) | access.mlflow_rules("127.0.0.1", 5000)
    for name in given:
        assert rules[name] == f"{own[name]},{given[name].split(',')[0]}"


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::"])
def test_the_address_for_other_machines_has_no_password(host: str) -> None:
    url = f"http://me:word@{access.own_name(host)}:5000"
    name = "127.0.0.1" if host == "127.0.0.1" else socket.gethostname()
    assert access.public_address(url, host) == f"http://{name}:5000"


def test_accounts_are_set_up_in_files_that_hold_no_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "a long secret")
    rules = access.mlflow_rules("127.0.0.1", 5000)
    assert rules["MLFLOW_AUTH_ADMIN_PASSWORD"] == "a long secret"
    key = mlflow_folder() / "secret_key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert rules["MLFLOW_FLASK_SERVER_SECRET_KEY"] == key.read_text() != ""
    assert access.mlflow_rules("127.0.0.1", 5000) == rules  # the key is made once
    texts = [path.read_text() for path in mlflow_folder().iterdir()]
    assert not [text for text in texts if "a long secret" in text]


def test_a_shown_address_has_no_password() -> None:
    shown = access.without_password("https://me:word@host.example:8080/api?x=1")
    assert shown == "https://host.example:8080/api?x=1"


@pytest.mark.parametrize(
    ("check", "variables", "message"),
    [
        (access.check_prefect, {}, "asks for a password, set PREFECT_API_AUTH_STRING="),
        (
            access.check_prefect,
            {"PREFECT_API_AUTH_STRING": "me:wrong"},
            "refuses the password in PREFECT_API_AUTH_STRING",
        ),
        (access.check_prefect, {"PREFECT_API_AUTH_STRING": "me:word"}, ""),
        (access.check_mlflow, {}, "asks for a password, set MLFLOW_TRACKING_USERNAME"),
        (
            access.check_mlflow,
            {"MLFLOW_TRACKING_USERNAME": "me", "MLFLOW_TRACKING_PASSWORD": "wrong"},
            "refuses MLFLOW_TRACKING_USERNAME",
        ),
        (
            access.check_mlflow,
            {"MLFLOW_TRACKING_USERNAME": "me", "MLFLOW_TRACKING_PASSWORD": "word"},
            "",
        ),
    ],
)
def test_a_missing_or_wrong_password_is_named(
    guarded_server: str,
    monkeypatch: pytest.MonkeyPatch,
    check,
    variables: dict[str, str],
    message: str,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if not message:
        check(guarded_server)
        return
    with pytest.raises(UserError, match=message):
        check(guarded_server)


def test_a_server_that_does_not_answer_or_is_another_one_is_named(
    guarded_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody = f"http://me:word@127.0.0.1:{servers.free_port()}"
    with pytest.raises(UserError, match="does not answer .* correct or unset PREFECT_API_URL") as r:
        access.check_prefect(f"{nobody}/api")
    assert "word" not in str(r.value)
    with pytest.raises(UserError, match="does not answer .* correct or unset MLFLOW_TRACKING_URI"):
        access.check_mlflow(nobody)
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "me:word")
    with pytest.raises(UserError, match="answers 404 to /admin/version"):
        access.check_prefect(f"{guarded_server}/elsewhere")


def test_accounts_that_mlflow_knows_by_a_file_are_left_to_it(
    guarded_server: str, data_root: Path
) -> None:
    (data_root / ".mlflow").mkdir()
    (data_root / ".mlflow" / "credentials").write_text("[mlflow]\n", encoding="utf-8")
    access.check_mlflow(guarded_server)


@pytest.mark.parametrize("body", [b"<html></html>", b"{}", b"[]"])
def test_a_page_in_place_of_the_api_is_one_line(body: bytes) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    with HTTPServer((servers.HOST, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with pytest.raises(UserError, match="something else than Prefect's; PREFECT_API_URL must"):
            access.check_prefect(f"http://{servers.HOST}:{server.server_port}")
        server.shutdown()
        thread.join()
