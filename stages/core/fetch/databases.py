"""Rows of database queries, through SQLAlchemy."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.core.config import SQLSource
from stages.core.config.sources import VARIABLE
from stages.core.errors import UserError, without_passwords
from stages.core.fetch.records import RECORDS_FILE, write_records
from stages.core.fetch.snapshots import Progress, Snapshot, keep, part_folder
from stages.core.fetch.variables import expand, without_secrets

if TYPE_CHECKING:
    import sqlalchemy

ROWS_AT_ONCE = 1000
PACKAGES = {
    "MySQLdb": "mysqlclient",
    "psycopg2": "'rlhf-flows[server]'",
    "psycopg": "'psycopg[binary]'",
}
"""What to install where a driver's module is called otherwise."""
BACKGROUND = re.compile(r"\(Background on this error at: .*")


def fetch_sql(source: SQLSource, cache: Path, progress: Progress) -> Snapshot:
    """The query's rows, asked anew each time; equal rows give the earlier snapshot again. Nothing
    is changed in the database: what the query began is rolled back.

    Raises:
        UserError: the database or its driver is not there, the query fails or has no rows.
    """
    import sqlalchemy

    shown = without_passwords(source.url)
    path = part_folder(cache, source) / RECORDS_FILE
    path.unlink(missing_ok=True)
    try:
        engine = sqlalchemy.create_engine(_address(source.url), pool_pre_ping=False)
        with engine.connect() as connection:
            written = write_records(path, _rows(connection, source, shown), progress)
        engine.dispose()
    except ImportError as error:
        module = (error.name or "its driver").partition(".")[0]
        package = PACKAGES.get(module, module)
        raise UserError(
            f"{shown}: needs the package {module}, which is missing: pip install {package}"
        ) from None
    except sqlalchemy.exc.NoSuchModuleError:
        dialect = shown.partition("://")[0]
        raise UserError(
            f"{shown}: SQLAlchemy knows no database {dialect!r}; correct it (postgresql, mysql, "
            "sqlite, …) or install its dialect"
        ) from None
    except sqlalchemy.exc.SQLAlchemyError as error:
        raise UserError(f"{shown}: {_reason(error, source)}") from None
    except UserError as error:
        raise UserError(f"{shown}: {error}") from None
    if written == 0:
        raise UserError(f"{shown}: the query has no rows; correct it: {_head(source.query)}")
    return keep(cache, source, [path], records=written)


# ------------------------------------------------------------------------------------ helpers


def _address(url: str) -> "sqlalchemy.URL":
    """The address with the secrets in it. Each part takes its own, so that no sign in a password
    has to be encoded.

    Raises:
        UserError: a variable is not set, or SQLite's file is not there.
    """
    import sqlalchemy

    given = sqlalchemy.make_url(expand(url) if VARIABLE.fullmatch(url) else url)
    address = given.set(
        username=_expanded(given.username),
        password=_expanded(given.password),
        host=_expanded(given.host),
        database=_expanded(given.database),
        query={name: _values(value) for name, value in given.query.items()},
    )
    if address.get_backend_name() == "sqlite" and address.database not in (None, "", ":memory:"):
        file = Path(str(address.database).removeprefix("file:"))
        if not file.is_file():  # SQLite would make an empty one
            raise UserError(f"{file}: no such file; looked in {Path.cwd()}")
    return address


def _expanded(text: str | None) -> str | None:
    return expand(text) if text else text


def _values(value: str | tuple[str, ...]) -> str | tuple[str, ...]:
    return expand(value) if isinstance(value, str) else tuple(map(expand, value))


def _rows(
    connection: "sqlalchemy.Connection", source: SQLSource, shown: str
) -> Iterator[Mapping[str, Any]]:
    # As it is: neither a colon nor a per cent sign in the query stands for a parameter.
    options = {"stream_results": True, "yield_per": ROWS_AT_ONCE, "no_parameters": True}
    result = connection.execution_options(**options).exec_driver_sql(source.query)
    if not result.returns_rows:
        raise UserError("the query returns no table; give one that begins with SELECT")
    names = list(result.keys())
    double = next((name for name in names if names.count(name) > 1), None)
    if double is not None:
        raise UserError(f"the query has two columns called {double!r}; name one with AS")
    for row in result:
        yield dict(zip(names, row, strict=True))


def _reason(error: Exception, source: SQLSource) -> str:
    """The database's own words, without SQLAlchemy's around them, and the cure."""
    own = getattr(error, "orig", None) or error
    # Behind the first line PostgreSQL shows a place in a query that the driver wrapped.
    text = next(iter(str(own).strip().splitlines()), "")
    message = without_secrets(BACKGROUND.sub("", text), source.url)
    kind = type(own).__name__
    if kind in ("OperationalError", "InterfaceError") and "syntax" not in message:
        return f"{message}; check the address, the login and the query: {_head(source.query)}"
    return f"{message}; correct the query: {_head(source.query)}"


def _head(query: str) -> str:
    words = " ".join(query.split())
    return words if len(words) <= 120 else words[:119] + "…"
