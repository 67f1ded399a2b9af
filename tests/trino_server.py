"""A double of Trino's protocol on loopback: statements, pages of JSON, cancelled queries.

It knows no SQL: a test says what a query answers, in the JSON that the protocol's documentation gives for each type,
and Trino's own client reads it. What it proves is the way through that client; that a server answers so, it does not.
"""

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.loopback_http import Exchange, loopback_http


class RefusedError(Exception):
    """What the server says of a query: name and type of the error, words."""

    def __init__(self, name: str, words: str, kind: str = "USER_ERROR") -> None:
        super().__init__(words)
        self.name, self.kind = name, kind


@dataclass(frozen=True, slots=True)
class Answer:
    """`columns` as (name, type); `pages` of rows; an `end` that is an error comes after the last page."""

    columns: Sequence[tuple[str, str]]
    pages: Sequence[Sequence[Sequence[object]]] = ()
    end: RefusedError | None = None
    waits: bool = False  # before its first page, until somebody cancels

    def described(self) -> list[dict[str, Any]]:
        return [{"name": name, "type": kind, "typeSignature": _signature(kind)} for name, kind in self.columns]


def _signature(kind: str) -> dict[str, object]:
    digits = [int(part) for part in kind.partition("(")[2].partition(")")[0].split(",") if part.strip().isdigit()]
    arguments = [{"kind": "LONG", "value": digit} for digit in digits]
    return {"rawType": kind.partition("(")[0], "arguments": arguments or [{"kind": "LONG", "value": 2147483646}]}


@dataclass(slots=True)
class TrinoServer:
    """`answer` says what a query gives, or raises RefusedError. Its queries come without what we wrap around them."""

    answer: Callable[[str], Answer] = lambda query: Answer(())
    port: int = 0
    status: int = 200
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)  # statement and headers
    cancelled: threading.Event = field(default_factory=threading.Event)
    hangs_up_at: int | None = None  # a page
    _answers: dict[str, Answer] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def uri(self) -> str:
        return f"trino://reader@127.0.0.1:{self.port}/hive/marts?secure=false"

    def queries(self) -> list[str]:
        """What was run, not only described."""
        return [query for query, _ in self.asked if query != "SELECT 1" and not query.endswith(" LIMIT 0")]

    def serve(self, exchange: Exchange) -> None:
        if self.status != 200:
            exchange.answer(b"planted: no such user", self.status)
        elif exchange.command == "POST":
            self._start(exchange)
        elif exchange.command == "DELETE":
            self.cancelled.set()
            exchange.answer(b"", 204)
        else:
            self._page(exchange)

    def _start(self, exchange: Exchange) -> None:
        query, number = exchange.body.decode(), str(next(self._numbers))
        self.asked.append((query, {name.lower(): value for name, value in exchange.headers.items()}))
        try:
            self._answers[number] = self._answer(query)
        except RefusedError as error:
            exchange.answer_json(self._state(number, None) | _failure(error))
            return
        exchange.answer_json(self._state(number, 0))

    def _answer(self, query: str) -> Answer:
        if query == "SELECT 1":
            return Answer([("_col0", "integer")], [[[1]]])
        if query.endswith(" LIMIT 0"):
            inside = query.removeprefix("SELECT * FROM (\n").removesuffix("\n) AS profiles LIMIT 0")
            return Answer(self._answer(inside).columns)
        names, separator, inside = query.partition(" FROM (\n")
        if not separator:
            return self.answer(query)
        whole = self.answer(inside.removesuffix("\n) AS profiles"))
        wanted = [part.partition('"')[2].partition('"')[0] for part in names.removeprefix("SELECT ").split(", ")]
        places = [[name for name, _ in whole.columns].index(name) for name in wanted]
        pages = [[[row[place] for place in places] for row in page] for page in whole.pages]
        return Answer([whole.columns[place] for place in places], pages, whole.end, whole.waits)

    def _page(self, exchange: Exchange) -> None:
        number, page = exchange.route.split("/")[-2:]
        answer, place = self._answers[number], int(page)
        if self.hangs_up_at == place and len(answer.pages) > 1:
            exchange.hang_up()
        elif answer.waits and self.cancelled.wait(0.05):
            error = RefusedError("USER_CANCELED", "Query was canceled")
            exchange.answer_json(self._state(number, None) | _failure(error))
        elif answer.waits:
            exchange.answer_json(self._state(number, 0) | {"columns": answer.described()})
        elif place < len(answer.pages):
            rows = {"columns": answer.described(), "data": answer.pages[place]}
            exchange.answer_json(self._state(number, place + 1) | rows)
        elif answer.end is not None:
            exchange.answer_json(self._state(number, None) | _failure(answer.end))
        else:
            exchange.answer_json(self._state(number, None) | {"columns": answer.described()})

    def _state(self, number: str, page: int | None) -> dict[str, object]:
        here = f"http://127.0.0.1:{self.port}"
        said: dict[str, object] = {"id": number, "infoUri": f"{here}/ui/{number}", "warnings": []}
        said["stats"] = {"state": "FINISHED" if page is None else "RUNNING"}
        return said if page is None else said | {"nextUri": f"{here}/v1/statement/{number}/{page}"}


def _failure(error: RefusedError) -> dict[str, object]:
    said = {"message": str(error), "errorCode": 1, "errorName": error.name, "errorType": error.kind}
    return {"error": said | {"failureInfo": {"type": "io.trino.spi.TrinoException"}}}


@contextmanager
def trino_server() -> Iterator[TrinoServer]:
    server = TrinoServer()
    with loopback_http(server.serve) as server.port:
        yield server
