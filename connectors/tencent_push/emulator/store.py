"""The emulator's state in one SQLite file: declared attributes, what is set per account, and exceptions per account.

Every write is one transaction of its own, handed to the operating system before the call is answered: it survives a
killed process (a power cut may lose the last calls, never the file). No rule of the API is decided here.
"""

import re
import sqlite3
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from connectors.tencent_push.protocol import MAX_ATTRIBUTES, MAX_USER_ID_BYTES, AccountType

UNKNOWN_USER_ID_PREFIX = "new-"
UNKNOWN_REGISTRATION_ID_PREFIX = "00000000-"
UNKNOWN_ACCOUNTS = (re.escape(UNKNOWN_USER_ID_PREFIX), re.escape(UNKNOWN_REGISTRATION_ID_PREFIX))

_REGISTRATION_ID = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_APPLICATION_ID = 0x54505545  # marks the file as the emulator's own
_SCHEMA = f"""
    create table declared (slot integer primary key, name text not null unique, account_type text not null) strict;
    create table account (
        account text primary key, {", ".join(f"value{slot} text" for slot in range(MAX_ATTRIBUTES))}
    ) strict, without rowid;
    create table exception (account text primary key, known integer not null, account_type text) strict, without rowid;
"""


class EmulatorDataError(Exception):
    """The data file cannot be used; the message names it and says what to do."""


@dataclass(frozen=True, slots=True)
class Declared:
    """One declared attribute: its slot (0 to 9), its name and the only account type that may carry it."""

    slot: int
    name: str
    account_type: AccountType


@dataclass(frozen=True, slots=True)
class _AccountException:
    known: bool
    account_type: AccountType | None


class Store:
    """The state of one app. Safe to use from many threads; writers take turns.

    Every account is known, except those whose beginning matches one of `unknown_accounts` and those that cannot exist
    (empty, or a UserID over 32 bytes). An account that looks like a UUID is a RegistrationID, every other a UserID.
    `set_exception` overrules both, per account. Raises EmulatorDataError when the file is not the emulator's.
    """

    def __init__(self, path: Path, *, unknown_accounts: Sequence[str] = UNKNOWN_ACCOUNTS) -> None:
        self._path = path
        self._lock = threading.Lock()
        self.declaring = threading.Lock()  # held by whoever checks the slots and then declares
        self._unknown = re.compile("|".join(f"(?:{pattern})" for pattern in unknown_accounts) or r"(?!)")
        self._connection = _open(path)
        self._declared = {row.name: row for row in self._read_declared()}
        self._exceptions = self._read_exceptions()

    def close(self) -> None:
        """Leaves a single file behind. A call that is still being written ends first."""
        with self._lock:
            self._connection.close()

    def declared(self) -> Mapping[str, Declared]:
        """Declared attributes by name, as they are at this moment."""
        return self._declared

    def declare(self, attributes: Collection[Declared]) -> None:
        """Adds slots or writes them again; whether that is allowed is the caller's rule."""
        with self._transaction():
            self._connection.executemany(
                "insert or replace into declared values (?, ?, ?)",
                [(row.slot, row.name, row.account_type.value) for row in attributes],
            )
        self._declared = {**self._declared, **{row.name: row for row in attributes}}

    def is_known(self, account: str) -> bool:
        exception = self._exceptions.get(account)
        if exception is not None:
            return exception.known
        if not account or self._unknown.match(account):
            return False
        return len(account.encode()) <= MAX_USER_ID_BYTES or self.account_type(account) is AccountType.REGISTRATION_ID

    def account_type(self, account: str) -> AccountType:
        exception = self._exceptions.get(account)
        if exception is not None and exception.account_type is not None:
            return exception.account_type
        is_uuid = _REGISTRATION_ID.fullmatch(account) is not None
        return AccountType.REGISTRATION_ID if is_uuid else AccountType.USER_ID

    def set_exception(self, account: str, *, known: bool, account_type: AccountType | None) -> None:
        with self._lock:
            self._connection.execute(
                "insert or replace into exception values (?, ?, ?)",
                (account, known, account_type.value if account_type else None),
            )
            self._exceptions[account] = _AccountException(known, account_type)

    def merge(self, rows: Mapping[str, Mapping[str, str]]) -> None:
        """Sets the named (declared) attributes of each account and leaves its others alone.

        One statement for the whole call: sqlite3 gives the interpreter away at every statement, and a hundred of them
        would wait for the other threads a hundred times.
        """
        if not rows:
            return
        columns = sorted(self._declared.values(), key=lambda row: row.slot)
        parameters: list[str | None] = []
        for account, attributes in rows.items():
            parameters.append(account)
            parameters.extend(attributes.get(column.name) for column in columns)
        with self._lock:
            self._connection.execute(_merge_sql(len(rows), [column.slot for column in columns]), parameters)

    def remove(self, rows: Mapping[str, Collection[str]]) -> None:
        """Removes the named (declared) attributes of each account; what is not set stays not set."""
        accounts_by_names: dict[frozenset[str], list[str]] = {}
        for account, names in rows.items():
            accounts_by_names.setdefault(frozenset(names), []).append(account)
        with self._transaction():
            for names, accounts in accounts_by_names.items():
                assignments = ", ".join(f"value{self._declared[name].slot} = null" for name in sorted(names))
                self._connection.execute(
                    f"update account set {assignments} where account in ({_marks(len(accounts))})",  # noqa: S608 - slots and marks, no text
                    accounts,
                )

    def read(self, accounts: Collection[str]) -> dict[str, dict[str, str]]:
        """What is set for each of `accounts`; an account without attributes gets an empty dict."""
        sql = f"select * from account where account in ({_marks(len(accounts))})"  # noqa: S608 - only question marks inserted
        with self._lock:
            rows = self._connection.execute(sql, list(accounts)).fetchall()
        found = {row[0]: self._named(row) for row in rows}
        return {account: found.get(account, {}) for account in accounts}

    def attributes(self) -> Iterator[tuple[str, dict[str, str]]]:
        """Every account with at least one attribute, ordered by account, streamed from one consistent snapshot.

        Also works after `close`.
        """
        with closing(sqlite3.connect(self._path)) as connection:
            for row in connection.execute("select * from account order by account"):
                attributes = self._named(row)
                if attributes:
                    yield row[0], attributes

    def _named(self, row: Sequence[str | None]) -> dict[str, str]:
        values = ((name, row[1 + column.slot]) for name, column in self._declared.items())
        return {name: value for name, value in values if value is not None}

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            self._connection.execute("begin immediate")
            try:
                yield
            except BaseException:
                self._connection.execute("rollback")
                raise
            self._connection.execute("commit")

    def _read_declared(self) -> list[Declared]:
        rows = self._connection.execute("select slot, name, account_type from declared order by slot")
        return [Declared(slot, name, AccountType(account_type)) for slot, name, account_type in rows]

    def _read_exceptions(self) -> dict[str, _AccountException]:
        rows = self._connection.execute("select account, known, account_type from exception")
        return {
            account: _AccountException(bool(known), AccountType(account_type) if account_type else None)
            for account, known, account_type in rows
        }


def _marks(count: int) -> str:
    return ",".join("?" * count)


def _merge_sql(rows: int, slots: Sequence[int]) -> str:
    columns = [f"value{slot}" for slot in slots]
    one_row = f"({_marks(1 + len(columns))})"
    kept = ", ".join(f"{column} = coalesce(excluded.{column}, {column})" for column in columns)
    names = ", ".join(["account", *columns])
    values = ",".join([one_row] * rows)
    return f"insert into account ({names}) values {values} on conflict (account) do update set {kept}"  # noqa: S608 - slots and marks, no text


def _open(path: Path) -> sqlite3.Connection:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None, cached_statements=256)
    except (OSError, sqlite3.Error) as error:
        raise EmulatorDataError(
            f"{path} cannot be opened ({error}); name a file in a folder that can be written"
        ) from error
    try:
        _prepare(connection, path)
    except sqlite3.Error as error:
        connection.close()
        raise EmulatorDataError(f"{path} cannot be used ({error}); name another file, or mend this one") from error
    except EmulatorDataError:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    (mark,) = connection.execute("pragma application_id").fetchone()
    (tables,) = connection.execute("select count(*) from sqlite_master").fetchone()
    if tables and mark != _APPLICATION_ID:
        raise EmulatorDataError(f"{path} is a database, but not the emulator's; name another file")
    connection.execute("pragma journal_mode = wal")
    connection.execute("pragma synchronous = normal")
    if not tables:
        connection.executescript(f"begin; {_SCHEMA} pragma application_id = {_APPLICATION_ID}; commit;")
