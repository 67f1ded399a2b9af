"""Field names and documented limits of the attribute API; encodes a call's body and decodes a reply's.

Pure: nothing here opens a connection, reads a clock or decides what a reply means for a row.
Sources are pages of https://www.tencentcloud.com/document/product/<number>.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeGuard

import orjson

MAX_ACCOUNTS_PER_CALL = 100  # set_attr, get_attr, remove_attr: 1047/60565, 60564, 60566
MAX_VALUE_BYTES = 50  # UTF-8 bytes, not characters: 1047/60565
MAX_NAME_BYTES = 50  # 1047/60563
MAX_ATTRIBUTES = 10  # slots "0" to "9" of an app: 1047/60563
MAX_USER_ID_BYTES = 32  # 1047/34953
MAX_REGISTRATION_ID_BYTES = 36  # an upper-case UUID: 1047/76551; longer ids are tokens of some other service
DOCUMENTED_CALLS_PER_SECOND = 100  # per command and app: 1047/60565, 60256

REGION_HOSTS: Mapping[str, str] = {  # 1047/34620; Tokyo on the newer copies 1047/67818
    "china": "console.tim.qq.com",
    "singapore": "adminapisgp.im.qcloud.com",
    "seoul": "adminapikr.im.qcloud.com",
    "frankfurt": "adminapiger.im.qcloud.com",
    "silicon_valley": "adminapiusa.im.qcloud.com",
    "jakarta": "adminapiidn.im.qcloud.com",
    "tokyo": "adminapijpn.im.qcloud.com",
}


class Command(StrEnum):
    """The commands under `/v4/timpush/` that concern attributes."""

    SET_ATTR = "set_attr"
    GET_ATTR = "get_attr"
    REMOVE_ATTR = "remove_attr"
    GET_ATTR_NAME = "get_attr_name"
    SET_ATTR_NAME = "set_attr_name"


class AccountType(StrEnum):
    """Whom an attribute belongs to; every attribute has exactly one (1047/60563)."""

    USER_ID = "user_id"
    REGISTRATION_ID = "registration_id"

    @property
    def wire(self) -> int:
        """The number that `AttrTypes` carries."""
        return 0 if self is AccountType.USER_ID else 1

    @classmethod
    def from_wire(cls, number: int) -> "AccountType":
        """Raises ValueError for a number that no page documents."""
        for member in cls:
            if member.wire == number:
                return member
        raise ValueError(f"AttrTypes {number} is not documented; known are 0 (UserID) and 1 (RegistrationID)")


@dataclass(frozen=True, slots=True)
class RowError:
    """One entry of `ErrorList`: what became of one account of the call. `info` may quote an account or a value."""

    account: str = field(repr=False)
    code: int
    info: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply that could be read. `code` 0 with an empty `row_errors` is the only whole success."""

    code: int
    info: str | None = field(repr=False)
    row_errors: tuple[RowError, ...] = ()
    body: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def attributes(self) -> dict[str, dict[str, str]]:
        """`UserAttrs` of a get_attr reply by account, whatever the order they came in (1047/60564).

        Raises ValueError, without quoting it, for another shape than the documented one.
        """
        users = _list_of_objects(self.body.get("UserAttrs"), name="UserAttrs")
        attributes: dict[Any, Any] = {user.get("To_Account"): user.get("Attrs") or {} for user in users}
        if not all(isinstance(account, str) and _is_text_map(attrs) for account, attrs in attributes.items()):
            raise ValueError("an entry of UserAttrs has no To_Account, or Attrs that are not text")
        return attributes

    def attribute_types(self) -> dict[str, AccountType]:
        """Declared attribute names of a get_attr_name reply. Raises ValueError as `attribute_slots` does."""
        return dict(self.attribute_slots().values())

    def attribute_slots(self) -> dict[int, tuple[str, AccountType]]:
        """The used slots of a get_attr_name reply; a missing `AttrTypes` means UserID (1047/67815, 60562).

        Raises ValueError for another shape than the documented one, or for an account type that no page documents.
        """
        names, types = self.body.get("AttrNames") or {}, self.body.get("AttrTypes") or {}
        if not _is_text_map(names) or not isinstance(types, dict):
            raise ValueError("AttrNames or AttrTypes is not a map from slot to name or type")
        if not all(slot.isdecimal() and type(types.get(slot, 0)) is int for slot in names):
            raise ValueError("AttrNames or AttrTypes holds a slot or a type that is not a number")
        return {int(slot): (name, AccountType.from_wire(types.get(slot, 0))) for slot, name in names.items() if name}


@dataclass(frozen=True, slots=True)
class UnreadableReply:
    """A body that is not the documented JSON; the call may or may not have been carried out."""

    why: str


def encode_set_attr(rows: Iterable[tuple[str, Mapping[str, str]]]) -> bytes:
    """(account, attributes to set) for at most `MAX_ACCOUNTS_PER_CALL` distinct accounts, as raw UTF-8."""
    return orjson.dumps({"UserAttrs": [{"To_Account": account, "Attrs": dict(set_)} for account, set_ in rows]})


def encode_remove_attr(rows: Iterable[tuple[str, Iterable[str]]]) -> bytes:
    """(account, names to remove): `Attrs` is an array of names here, not a map (1047/60566)."""
    return orjson.dumps({"UserAttrs": [{"To_Account": account, "Attrs": list(names)} for account, names in rows]})


def encode_get_attr(accounts: Iterable[str]) -> bytes:
    return orjson.dumps({"To_Account": list(accounts)})


def encode_get_attr_name() -> bytes:
    """A body is never empty (1047/34620)."""
    return b"{}"


def encode_set_attr_name(slots: Mapping[int, tuple[str, AccountType]]) -> bytes:
    """Slot number (0 to 9) -> (attribute name, account type); the type can never be changed later (1047/60563)."""
    return orjson.dumps(
        {
            "AttrNames": {str(slot): name for slot, (name, _) in slots.items()},
            "AttrTypes": {str(slot): account_type.wire for slot, (_, account_type) in slots.items()},
        }
    )


def decode_reply(content: bytes) -> Reply | UnreadableReply:
    """Never raises: whatever arrives is a `Reply` or the reason why it is none."""
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError:
        return UnreadableReply("the body is not JSON" if content else "the body is empty")
    if not isinstance(body, dict):
        return UnreadableReply("the body is JSON, but not an object")
    code, status, info = body.get("ErrorCode"), body.get("ActionStatus"), body.get("ErrorInfo")
    if not _is_code(code):
        return UnreadableReply("ErrorCode is missing or not a whole number")
    if code == 0 and status != "OK":
        return UnreadableReply("ErrorCode is 0, but ActionStatus is not OK")
    errors = _decode_row_errors(body.get("ErrorList"))
    if isinstance(errors, UnreadableReply):
        return errors
    return Reply(code=code, info=info if isinstance(info, str) and info else None, row_errors=errors, body=body)


def _is_code(code: object) -> TypeGuard[int]:
    """A whole number of 32 bits, which is what failed rows can hold; no documented code comes near its limits."""
    return type(code) is int and abs(code) < 2**31


def _decode_row_errors(entries: object) -> tuple[RowError, ...] | UnreadableReply:
    if entries is None:
        return ()
    if not isinstance(entries, list):
        return UnreadableReply("ErrorList is not an array")
    errors = []
    for entry in entries:
        account = entry.get("To_Account") if isinstance(entry, dict) else None
        code = entry.get("ErrorCode") if isinstance(entry, dict) else None
        if not isinstance(account, str) or not _is_code(code):
            return UnreadableReply("an entry of ErrorList has no To_Account or no ErrorCode")
        info = entry.get("ErrorInfo")
        errors.append(RowError(account, code, info if isinstance(info, str) and info else None))
    return tuple(errors)


def _list_of_objects(entries: object, *, name: str) -> list[dict[str, Any]]:
    if entries is None:
        return []
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"{name} is not an array of objects")
    return entries


def _is_text_map(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())
