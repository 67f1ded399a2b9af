"""The JSON that the emulator answers with: a success, a success with refused rows, a refused call.

Only the form stands here (1047/34620, 1047/60565). What is refused and why is decided in access.py and rules.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson


class RefusalError(Exception):
    """The call is refused whole; nothing of it is carried out. `info` quotes no account and no value."""

    def __init__(self, code: int, info: str) -> None:
        self.code = code
        self.info = info
        super().__init__(f"refused with code {code}: {info}")


@dataclass(frozen=True, slots=True)
class RowRefusal:
    """Why one account of the call got nothing; without `info` the entry has no ErrorInfo, as in 1047/60566."""

    code: int
    info: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back to the client: an ErrorCode for the record, and the body that carries it."""

    code: int
    content: bytes


def success(refused: Mapping[str, RowRefusal], fields: Mapping[str, Any] | None = None) -> Answer:
    """`ErrorCode` 0, also when rows were refused: those stand in `ErrorList`, which is left out when empty."""
    body: dict[str, Any] = {"ActionStatus": "OK", "ErrorInfo": "", "ErrorCode": 0, **(fields or {})}
    if refused:
        body["ErrorList"] = [_error_entry(account, refusal) for account, refusal in refused.items()]
    return Answer(0, orjson.dumps(body))


def failure(code: int, info: str) -> Answer:
    return Answer(code, orjson.dumps({"ActionStatus": "FAIL", "ErrorInfo": info, "ErrorCode": code}))


def _error_entry(account: str, refusal: RowRefusal) -> dict[str, Any]:
    entry: dict[str, Any] = {"To_Account": account, "ErrorCode": refusal.code}
    if refusal.info is not None:
        entry["ErrorInfo"] = refusal.info
    return entry
