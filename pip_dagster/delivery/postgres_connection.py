"""A connection to the Postgres of a target: its time-outs, and what its errors mean. No text of it holds a secret."""

from __future__ import annotations

import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from pip_dagster.delivery.target import DeliveryError
from pip_dagster.quoted import of_server

if TYPE_CHECKING:
    from psycopg2.extensions import connection, cursor

# Beyond the server's own time-out: only one that is hung or cut off is still silent then.
_GRACE_SECONDS = 5.0
_SECRETS = ("password", "sslpassword")

# SQLSTATEs, or their classes, that another attempt may not meet: lost connections, a server that restarts or has no
# free connection or memory, deadlocks, locks, time-outs, and a standby before it has taken over.
_PASSING = ("08", "53", "57", "58", "40", "55P03", "25006")
# What a server says that refuses a connection for good; a failed connection has no SQLSTATE.
_REFUSED = re.compile(r'authentication failed|no pg_hba\.conf entry|(database|role) ".*" does not exist|no password')


class PostgresSession:
    """One connection for the deliveries of a target."""

    def __init__(self, where: str, shown: str, address: str, timeout: float) -> None:
        """Connect to the database with this URL; `shown` says where it is from.

        Raises:
            DeliveryError: it is no address of a Postgres, or the server is away or refuses.
        """
        import psycopg2
        from psycopg2.extensions import parse_dsn

        self.where, self.timeout = where, timeout
        try:
            parts = parse_dsn(address)
        except psycopg2.Error:  # its text holds the address
            raise DeliveryError(
                f"{where}: {shown} is no address of a Postgres; expected postgresql://…@host/database"
            ) from None
        self._secrets = [parts[name] for name in _SECRETS if parts.get(name)]
        milliseconds = int(timeout * 1000)
        try:
            self.con: connection = psycopg2.connect(
                address,
                connect_timeout=max(2, int(timeout)),
                tcp_user_timeout=milliseconds,
                keepalives_idle=max(1, int(timeout)),
                client_encoding="UTF8",
                application_name="pip_dagster",
            )
        except psycopg2.Error as error:
            raise self.trouble(error) from None
        self._watch = _Silence(self.con, timeout + _GRACE_SECONDS)

    @contextmanager
    def transaction(self, *, only_read: bool = False) -> Iterator[cursor]:
        """A transaction that is committed if the block ends well.

        Raises:
            DeliveryError: for every error of Postgres.
        """
        import psycopg2

        level = "REPEATABLE READ" if only_read else "READ COMMITTED"
        try:
            self.con.set_session(isolation_level=level, readonly=only_read)
            with self._watch, self.con, self.con.cursor() as cursor:
                self.set_local(cursor, statement_timeout=self.timeout)
                # A machine that vanishes leaves its connection open; its locks must not outlast it by hours.
                self.set_local(cursor, lock_timeout=self.timeout / 2)
                self.set_local(cursor, idle_in_transaction_session_timeout=self.timeout + _GRACE_SECONDS)
                cursor.execute("SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO'; SET LOCAL bytea_output = hex")
                cursor.execute("SET LOCAL standard_conforming_strings = on; SET LOCAL IntervalStyle = 'postgres'")
                yield cursor
        except psycopg2.Error as error:
            raise self.trouble(error) from None

    def set_local(self, cursor: cursor, **seconds: float) -> None:
        """Set time-outs of the server for the rest of the transaction; 0 is none."""
        self._watch.alive()
        for name, value in seconds.items():
            cursor.execute(f"SET LOCAL {name} = {int(value * 1000)}")

    def watched(self, file: Any) -> Any:
        """A file that is copied: as long as it moves on, the server is not silent."""
        return _Moving(file, self._watch)

    def execute(self, cursor: cursor, sql: str, parameters: tuple[Any, ...] | None = None) -> None:
        """Run a statement, which has its own time."""
        self._watch.alive()
        cursor.execute(sql, parameters)

    def trouble(self, error: Any) -> DeliveryError:
        """What an error of Postgres means, without what it may quote of rows."""
        code = error.pgcode or ""
        said = (getattr(error.diag, "message_primary", None) or str(error)).strip().splitlines()[0]
        for secret in self._secrets:
            said = said.replace(secret, "***")
        said = of_server(said) if code else said  # a connection that is refused is about no row
        if not code:
            gone = not _REFUSED.search(said)
            what = "the database does not answer" if gone else "the database refuses the connection"
            return DeliveryError(f"{self.where}: {what}. Postgres says: {said}", again=gone)
        # By name: in the text, names stand in quotes as values do.
        column = re.search(r", column ([^:]+):", getattr(error.diag, "context", None) or "")
        name = column[1] if column else getattr(error.diag, "column_name", None)
        constraint = getattr(error.diag, "constraint_name", None)
        of = f" of column {name}" if name else f" by {constraint}" if constraint else ""
        return DeliveryError(
            f"{self.where}: {_meaning(code)}{of}. Postgres says: {said} (SQLSTATE {code})",
            again=code.startswith(_PASSING),
        )

    def close(self) -> None:
        """Close the connection, which rolls an open transaction back."""
        with suppress(Exception):
            self.con.close()


def _meaning(code: str) -> str:
    if code == "42501":
        return "the role may not do this; grant it what the documentation of the target lists"
    if code == "55P03":
        return "another session has locked the table for longer than half of `timeout`"
    if code == "57014":
        return "the server took longer than `timeout`; raise it if the partition is large"
    if code.startswith("22"):
        return "the table cannot store a value"
    if code.startswith("23"):
        return "a constraint of the table refuses the rows"
    if code.startswith(("08", "57")):
        return "the connection was lost"
    return "the database refuses the delivery"


class _Silence:
    """Cuts a connection off whose server is silent: libpq itself would wait for ever."""

    def __init__(self, con: connection, seconds: float) -> None:
        self._con, self._seconds = con, seconds

    def __enter__(self) -> None:
        self.alive()
        self._done = threading.Event()
        self._socket = socket.socket(fileno=os.dup(self._con.fileno()))
        self._thread = threading.Thread(target=self._run, name="postgres", daemon=True)
        self._thread.start()

    def alive(self) -> None:
        self._until = time.monotonic() + self._seconds

    def _run(self) -> None:
        while not self._done.wait(max(0.0, self._until - time.monotonic())):
            if time.monotonic() >= self._until:
                with suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)
                return

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self._socket.close()


class _Moving:
    def __init__(self, file: Any, watch: _Silence) -> None:
        self._file, self._watch = file, watch

    def read(self, size: int = -1) -> bytes:
        self._watch.alive()
        return bytes(self._file.read(size))

    def write(self, data: bytes) -> int:
        self._watch.alive()
        return int(self._file.write(data))
