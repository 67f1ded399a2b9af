"""What a command does with its body: the documented limits, who may carry which attribute, what is stored.

Signature and quota have been looked at before; parsed JSON comes in and an `Answer` goes out. Where the documentation
is silent, the strict reading is taken, and the function that takes it says so. Declaring names stands in slots.py.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from connectors.tencent_push.emulator.answers import Answer, RefusalError, RowRefusal, success
from connectors.tencent_push.emulator.slots import get_attr_name, set_attr_name
from connectors.tencent_push.emulator.store import Store
from connectors.tencent_push.protocol import MAX_ACCOUNTS_PER_CALL, MAX_VALUE_BYTES, Command

_UNKNOWN_ACCOUNT = RowRefusal(70107)  # the sample of 1047/60566 has no ErrorInfo either


@dataclass(frozen=True, slots=True)
class Handling:
    """How one call is to be treated beyond the rules.

    `refused_rows` get nothing, whatever they hold. With `bad_row_refuses_call` an invalid attribute (90033) or a wrong
    account type (90035) refuses the whole call instead of its row: no page says which of the two it is.
    """

    refused_rows: Mapping[str, RowRefusal] = field(default_factory=dict)
    bad_row_refuses_call: bool = False


def carry_out(command: Command, payload: object, *, store: Store, handling: Handling) -> Answer:
    """Raises RefusalError when the whole call is refused; then nothing of it is stored."""
    if not isinstance(payload, dict):
        raise RefusalError(90001, "the body is not a JSON object")
    match command:
        case Command.SET_ATTR:
            return _set_attr(payload, store, handling)
        case Command.REMOVE_ATTR:
            return _remove_attr(payload, store, handling)
        case Command.GET_ATTR:
            return _get_attr(payload, store, handling)
        case Command.GET_ATTR_NAME:
            return get_attr_name(store)
        case Command.SET_ATTR_NAME:
            return set_attr_name(payload, store)


def _set_attr(payload: Mapping[str, Any], store: Store, handling: Handling) -> Answer:
    """Merges: attributes that the call does not name stay. An account that stands twice is taken as one row with the
    attributes of both, the later one wins; no page says so.
    """
    rows: dict[str, dict[str, str]] = {}
    for account, attributes in _user_attrs(payload):
        if not isinstance(attributes, dict) or not all(isinstance(value, str) for value in attributes.values()):
            raise RefusalError(90001, "Attrs is not an object of strings")
        rows.setdefault(account, {}).update(attributes)
    refused = _refusals(rows, store, handling, judge=lambda account: _judge_values(store, account, rows[account]))
    store.merge({account: attributes for account, attributes in rows.items() if account not in refused})
    return success(refused)


def _remove_attr(payload: Mapping[str, Any], store: Store, handling: Handling) -> Answer:
    """Removing what is not set succeeds; no page says so. `Attrs` is an array of names here (1047/60566)."""
    rows: dict[str, set[str]] = {}
    for account, names in _user_attrs(payload):
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise RefusalError(90001, "Attrs is not an array of names")
        rows.setdefault(account, set()).update(names)
    refused = _refusals(rows, store, handling, judge=lambda account: _judge_names(store, account, rows[account]))
    store.remove({account: names for account, names in rows.items() if account not in refused})
    return success(refused)


def _get_attr(payload: Mapping[str, Any], store: Store, handling: Handling) -> Answer:
    """Answers in reverse, since the order of the answer is not the order of the question (1212/45937)."""
    asked = payload.get("To_Account")
    if not isinstance(asked, list) or not asked:
        raise RefusalError(90001, "To_Account is not an array of accounts")
    _check_count(asked)
    accounts = list(dict.fromkeys(_account(entry) for entry in asked))
    refused = _refusals(dict.fromkeys(accounts), store, handling, judge=lambda _: None)
    found = store.read([account for account in reversed(accounts) if account not in refused])
    users = [{"To_Account": account, "Attrs": attributes} for account, attributes in found.items()]
    return success(refused, {"UserAttrs": users})


def _user_attrs(payload: Mapping[str, Any]) -> list[tuple[str, object]]:
    """(account, `Attrs`) of every entry; an empty list is refused like a missing one, which no page says."""
    entries = payload.get("UserAttrs")
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise RefusalError(90001, "UserAttrs is not an array of objects")
    _check_count(entries)
    return [(_account_of(entry), entry.get("Attrs")) for entry in entries]


def _check_count(entries: list[Any]) -> None:
    if len(entries) > MAX_ACCOUNTS_PER_CALL:
        raise RefusalError(90018, f"more than {MAX_ACCOUNTS_PER_CALL} accounts in one call")


def _account_of(entry: Mapping[str, Any]) -> str:
    if "To_Account" not in entry:
        raise RefusalError(90003, "To_Account is missing")
    return _account(entry["To_Account"])


def _account(account: object) -> str:
    if not isinstance(account, str):
        raise RefusalError(60015, "To_Account is not a string")
    return account


def _refusals(
    rows: Mapping[str, object], store: Store, handling: Handling, *, judge: Callable[[str], RowRefusal | None]
) -> dict[str, RowRefusal]:
    """What is refused, by account: on a script first, then as unknown, then for what the row holds."""
    refused: dict[str, RowRefusal] = {}
    for account in rows:
        refusal = handling.refused_rows.get(account)
        if refusal is None:
            refusal = judge(account) if store.is_known(account) else _UNKNOWN_ACCOUNT
            if refusal is not None and refusal.code in (90033, 90035) and handling.bad_row_refuses_call:
                raise RefusalError(refusal.code, refusal.info or "")
        if refusal is not None:
            refused[account] = refusal
    return refused


def _judge_values(store: Store, account: str, attributes: Mapping[str, str]) -> RowRefusal | None:
    """One bad attribute refuses the row whole, also its good ones; an empty or too long value is 90033, the only code
    for it on the page (older ones have 90030). Which of that holds, no page says.
    """
    declared = store.declared()
    if not attributes or any(name not in declared for name in attributes):
        return RowRefusal(90033, "attribute invalid: a name is not declared, or there is none")
    if any(not 1 <= _utf8_bytes(value) <= MAX_VALUE_BYTES for value in attributes.values()):
        return RowRefusal(90033, f"attribute invalid: a value is empty or longer than {MAX_VALUE_BYTES} bytes")
    account_type = store.account_type(account)
    if any(declared[name].account_type is not account_type for name in attributes):
        return RowRefusal(90035, "an attribute belongs to the other account type")
    return None


def _judge_names(store: Store, account: str, names: set[str]) -> RowRefusal | None:
    """The page of remove_attr (1047/60566) does not list 90035, so the other account type's attribute is 90033 too."""
    declared, account_type = store.declared(), store.account_type(account)
    if not names or any(name not in declared or declared[name].account_type is not account_type for name in names):
        return RowRefusal(90033, "attribute invalid: a name is not declared for this account type, or there is none")
    return None


def _utf8_bytes(value: str) -> int:
    return len(value) if value.isascii() else len(value.encode())
