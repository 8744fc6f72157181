"""Counts rows in a database, again and again: the text of a program that the hands start for a pool, as the pool's user.

It imports nothing of nicety: Python 3.8 and a driver for the database are enough. It prints the count as a line, or what is wrong,
after which it ends. The URL, the query and the seconds between two counts come in its environment, because others can read
arguments.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from typing import Any
from urllib.parse import unquote, urlsplit

DRIVERS = {
    "sqlite": ("sqlite3",),
    "postgresql": ("psycopg", "psycopg2"),
    "mysql": ("pymysql", "MySQLdb"),
}
"""By scheme of the URL, the modules that can connect; the first that is there does."""

PATIENCE = 5
"""Seconds that a statement or a lock may take. Chosen: less than the daemon waits, so that the database's own words are seen."""


def connect(url: str) -> Any:
    """A connection that reads only, each statement by itself. Raises LookupError without a driver; else as the driver does."""
    scheme = url.partition(":")[0]
    if scheme not in DRIVERS:
        raise LookupError(f"the URL begins with {', '.join(f'{known}://' for known in DRIVERS)}")
    for name in DRIVERS[scheme]:
        try:
            driver = importlib.import_module(name)
        except ImportError:
            continue
        return {"sqlite": _sqlite, "postgresql": _postgresql, "mysql": _mysql}[scheme](driver, url)
    raise LookupError(
        f"{sys.executable} has no {' or '.join(DRIVERS[scheme])}: install it, or give a Python that has it as sql_python"
    )


def _sqlite(driver: Any, url: str) -> Any:
    path = url.partition("://")[2][1:]  # sqlite:////srv/app/jobs.db, as SQLAlchemy writes it
    quoted = unquote(path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    return driver.connect(f"file:{quoted}?mode=ro", uri=True, timeout=PATIENCE, isolation_level=None)


def _postgresql(driver: Any, url: str) -> Any:
    connection = driver.connect(url, connect_timeout=PATIENCE)
    connection.autocommit = True
    cursor = connection.cursor()
    cursor.execute("SET default_transaction_read_only = on")
    cursor.execute(f"SET statement_timeout = {PATIENCE * 1000}")
    return connection


def _mysql(driver: Any, url: str) -> Any:
    parts = urlsplit(url)
    connection = driver.connect(
        host=parts.hostname or "127.0.0.1",
        port=parts.port or 3306,
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        database=unquote(parts.path[1:]),
        connect_timeout=PATIENCE,
    )
    connection.autocommit(True)
    connection.cursor().execute("SET SESSION TRANSACTION READ ONLY")
    return connection


def count(connection: Any, query: str) -> int:
    """What the query finds. Raises ValueError if that is not one whole number."""
    cursor = connection.cursor()
    cursor.execute(query)
    row = cursor.fetchone()
    cursor.close()
    if row is None or len(row) != 1 or not isinstance(row[0], int) or row[0] < 0:
        raise ValueError(f"the query must find one whole number, and found {row!r:.60}")
    return row[0]


def serve() -> None:
    """Count until something is wrong."""
    url, query, every = (os.environ.pop(f"NICETY_SQL_{name}") for name in ("URL", "QUERY", "EVERY"))
    try:
        connection = connect(url)
        while True:
            print(count(connection, query), flush=True)
            time.sleep(float(every))
    except Exception as error:  # of a driver: whatever it is, its words say what to do
        print(" ".join(str(error).split()) or type(error).__name__, flush=True)
        sys.exit(1)
