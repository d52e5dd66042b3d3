"""Who may reach the servers: addresses, passwords, and our own calls that carry them.

Passwords come from the environment and stay there: never on a command line, in a record or a log.
"""

import base64
import contextlib
import ipaddress
import os
import secrets
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import httpx
import psutil

from flows.environment import mlflow_folder
from stages.core.errors import UserError

TIMEOUT_SECONDS = 10.0
MIN_MLFLOW_PASSWORD_CHARACTERS = 12
"""MLflow refuses shorter ones."""
LOOPBACK_NAMES = ("127.0.0.1", "localhost")

AUTH_CONFIG = """\
[mlflow]
default_permission = READ
database_uri = sqlite:///{database}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
"""


# ----------------------------------------------------------------------------- who is let in


def prefect_password() -> str:
    """``user:password`` that the Prefect servers started here ask for; empty for none.

    Raises:
        UserError: it has no user or no password.
    """
    given = os.environ.get("PREFECT_SERVER_API_AUTH_STRING", "")
    user, _, password = given.partition(":")
    if given and not (user and password):
        raise UserError("PREFECT_SERVER_API_AUTH_STRING must be user:password")
    return given


def mlflow_password() -> tuple[str, str] | None:
    """User and password that the MLflow server started here asks for.

    Raises:
        UserError: only one of the two is set, or the password is too short for MLflow.
    """
    user = os.environ.get("MLFLOW_TRACKING_USERNAME", "")
    password = os.environ.get("MLFLOW_TRACKING_PASSWORD", "")
    if not user and not password:
        return None
    if not user or not password:
        raise UserError("set both MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or none")
    if len(password) < MIN_MLFLOW_PASSWORD_CHARACTERS:
        least = MIN_MLFLOW_PASSWORD_CHARACTERS
        raise UserError(f"MLFLOW_TRACKING_PASSWORD: MLflow wants at least {least} characters")
    return user, password


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that is bound to ``host``."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def require_passwords(host: str, *, prefect: bool = True, mlflow: bool = True) -> None:
    """Refuse to show servers without a password to other machines.

    Args:
        prefect: a Prefect server is to be started.
        mlflow: an MLflow server is to be started.

    Raises:
        UserError: ``host`` is not of the loopback interface and a password is not set.
    """
    missing = []
    if prefect and not prefect_password():
        missing.append("PREFECT_SERVER_API_AUTH_STRING=user:password")
    if mlflow and mlflow_password() is None:
        missing.append("MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD")
    if missing and not is_loopback(host):
        raise UserError(
            f"--host {host}: other machines could start runs and read everything without a "
            f"password; set {' and '.join(missing)}, or leave --host out"
        )


def served_names(host: str) -> list[str]:
    """The names and addresses under which a server bound to ``host`` is asked for."""
    names = [*LOOPBACK_NAMES]
    if host in ("0.0.0.0", "::"):
        family = socket.AF_INET if host == "0.0.0.0" else socket.AF_INET6
        addresses = [item for known in psutil.net_if_addrs().values() for item in known]
        names += [item.address.split("%")[0] for item in addresses if item.family == family]
        names += [socket.gethostname(), socket.getfqdn()]
    else:
        names.append(host)
    return list(dict.fromkeys(f"[{name}]" if ":" in name else name for name in names))


def own_name(host: str) -> str:
    """The name under which this machine reaches a server bound to ``host``."""
    # Who listens on :: need not take connections to 127.0.0.1.
    host = {"0.0.0.0": LOOPBACK_NAMES[0], "::": "::1"}.get(host, host)
    return f"[{host}]" if ":" in host else host


def public_address(url: str, host: str) -> str:
    """The address of a server bound to ``host`` for people at other machines."""
    name = socket.gethostname() if host in ("0.0.0.0", "::") else own_name(host)
    return without_password(url).replace(f"//{own_name(host)}:", f"//{name}:")


def prefect_rules(host: str, port: int) -> dict[str, str]:
    """Environment of a Prefect server: password, no foreign pages, no forged requests."""
    password = prefect_password()
    origins = [f"http://{name}:{port}" for name in served_names(host)]
    return _with_given("PREFECT_SERVER_CORS_ALLOWED_ORIGINS", origins) | {
        "PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED": "true",
        **({"PREFECT_SERVER_API_AUTH_STRING": password} if password else {}),
    }


def mlflow_rules(host: str, port: int) -> dict[str, str]:
    """Environment of an MLflow server: served names, and accounts where a password is set."""
    names = served_names(host)
    with_port = [f"{name}:{port}" for name in names]
    origins = [f"http://{name}" for name in with_port]
    rules = _with_given("MLFLOW_SERVER_ALLOWED_HOSTS", [*names, *with_port])
    rules |= _with_given("MLFLOW_SERVER_CORS_ALLOWED_ORIGINS", origins)
    account = mlflow_password()
    if account is not None:
        rules |= {
            "MLFLOW_AUTH_ADMIN_USERNAME": account[0],
            "MLFLOW_AUTH_ADMIN_PASSWORD": account[1],
            "MLFLOW_AUTH_CONFIG_PATH": os.environ.get("MLFLOW_AUTH_CONFIG_PATH") or _auth_config(),
            "MLFLOW_FLASK_SERVER_SECRET_KEY": _secret_key(),
        }
    return rules


def _with_given(variable: str, own: list[str]) -> dict[str, str]:
    """Our own names and the user's: under ours we ask the server ourselves."""
    given = [name.strip() for name in os.environ.get(variable, "").split(",")]
    return {variable: ",".join(dict.fromkeys(filter(None, [*own, *given])))}


def _auth_config() -> str:
    path = mlflow_folder() / "basic_auth.ini"
    database = str(mlflow_folder() / "accounts.db").replace("%", "%%")
    path.write_text(AUTH_CONFIG.format(database=database), encoding="utf-8")
    return str(path)


def _secret_key() -> str:
    """Signs the cookies of MLflow's pages: made once, since a new one would end all sessions."""
    path = mlflow_folder() / "secret_key"
    if not path.exists():
        write_private(path, secrets.token_hex(32))
    return path.read_text(encoding="utf-8")


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, from its first byte on."""
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    part.replace(path)


# ----------------------------------------------------------------------------- our own calls


def server_address(uri: str) -> str:
    """``uri`` where it is that of a server, and not of a database: empty else."""
    return uri.rstrip("/") if uri.startswith(("http://", "https://")) else ""


def without_password(url: str) -> str:
    """The address as it may be shown: without ``user:password@``."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


@contextlib.contextmanager
def prefect_client(
    api_url: str, timeout_seconds: float = TIMEOUT_SECONDS
) -> Iterator[httpx.Client]:
    """A client for calls to the Prefect API, with password and the token against forged requests.

    Raises:
        httpx.HTTPError: the server does not answer.
    """
    headers = {}
    if given := os.environ.get("PREFECT_API_AUTH_STRING"):
        headers["Authorization"] = f"Basic {base64.b64encode(given.encode()).decode()}"
    elif key := os.environ.get("PREFECT_API_KEY"):
        headers["Authorization"] = f"Bearer {key}"
    with _client(
        api_url, headers, "PREFECT_API_SSL_CERT_FILE", "PREFECT_API_TLS_INSECURE_SKIP_VERIFY"
    ) as client:
        client.timeout = httpx.Timeout(timeout_seconds)
        name = str(uuid.uuid4())
        answer = client.get("/csrf-token", params={"client": name})
        if answer.is_success:  # else the server does not ask for one, or refuses the password
            token = answer.json()["token"]
            client.headers.update({"Prefect-Csrf-Token": token, "Prefect-Csrf-Client": name})
        yield client


def check_prefect(api_url: str) -> None:
    """Ask the Prefect API for its version.

    Raises:
        UserError: it does not answer, or asks for another password.
    """
    name = f"the Prefect server at {without_password(api_url)}"
    address = "PREFECT_API_URL must be the address of an API, such as http://127.0.0.1:4200/api"
    try:
        with prefect_client(api_url) as client:
            answer = client.get("/admin/version")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise UserError(_unreachable(name, "PREFECT_API_URL", error)) from None
    except (ValueError, KeyError, TypeError):  # a page where the token should be
        raise UserError(f"{name} answers with something else than Prefect's; {address}") from None
    if answer.status_code in (401, 403):
        given = os.environ.get("PREFECT_API_AUTH_STRING")
        state = "refuses the password in" if given else "asks for a password, set"
        cure = "" if given else "=user:password"
        raise UserError(f"{name} {state} PREFECT_API_AUTH_STRING{cure}")
    if not answer.is_success:
        raise UserError(f"{name} answers {answer.status_code} to /admin/version; {address}")


def check_mlflow(url: str) -> None:
    """Ask the MLflow server for one experiment.

    Raises:
        UserError: it does not answer, or asks for another password.
    """
    name = f"the MLflow server at {without_password(url)}"
    headers = {}
    user = os.environ.get("MLFLOW_TRACKING_USERNAME", "")
    password = os.environ.get("MLFLOW_TRACKING_PASSWORD", "")
    if user or password:
        token = base64.b64encode(f"{user}:{password}".encode()).decode()
        headers["Authorization"] = f"Basic {token}"
    elif token := os.environ.get("MLFLOW_TRACKING_TOKEN", ""):
        headers["Authorization"] = f"Bearer {token}"
    try:
        with _client(
            url, headers, "MLFLOW_TRACKING_SERVER_CERT_PATH", "MLFLOW_TRACKING_INSECURE_TLS"
        ) as client:
            answer = client.get("/api/2.0/mlflow/experiments/search", params={"max_results": 1})
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise UserError(_unreachable(name, "MLFLOW_TRACKING_URI", error)) from None
    if answer.status_code in (401, 403):
        if not headers and _mlflow_signs_in_otherwise():
            return
        state = "refuses" if headers else "asks for a password, set"
        raise UserError(f"{name} {state} MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD")
    if not answer.is_success:
        raise UserError(
            f"{name} answers {answer.status_code}; MLFLOW_TRACKING_URI must be the address of an "
            "MLflow server, such as http://127.0.0.1:5000"
        )


def _client(url: str, headers: dict[str, str], certificates: str, unchecked: str) -> httpx.Client:
    """A client with the certificates and switches that the library itself would use."""
    is_unchecked = os.environ.get(unchecked, "").lower() in ("1", "true", "yes")
    is_near = is_loopback(urlsplit(url).hostname or "")
    return httpx.Client(
        base_url=url.rstrip("/"),
        headers=headers,
        timeout=TIMEOUT_SECONDS,
        trust_env=not is_near,  # no proxy between two processes of one machine
        verify=False if is_unchecked else os.environ.get(certificates) or True,
    )


def _mlflow_signs_in_otherwise() -> bool:
    """Whether MLflow may know a password, or another way in, that we do not read."""
    variables = ("MLFLOW_TRACKING_AUTH", "MLFLOW_TRACKING_AWS_SIGV4")
    file = Path("~/.mlflow/credentials").expanduser()
    return file.exists() or any(os.environ.get(name) for name in variables)


def _unreachable(name: str, variable: str, error: Exception) -> str:
    return f"{name} does not answer ({error}); start it, or correct or unset {variable}"
