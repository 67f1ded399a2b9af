"""The rules for declared attribute names: ten slots, a name stands in one of them, its account type never changes.

Serves set_attr_name and get_attr_name (1047/60563, 1047/67815), and declarations made without a call.
"""

from collections.abc import Mapping
from typing import Any

from connectors.tencent_push.emulator.answers import Answer, RefusalError, success
from connectors.tencent_push.emulator.store import Declared, Store
from connectors.tencent_push.protocol import MAX_ATTRIBUTES, MAX_NAME_BYTES, AccountType

_SLOTS = tuple(str(slot) for slot in range(MAX_ATTRIBUTES))


def get_attr_name(store: Store) -> Answer:
    """Only the slots that are taken; `AttrTypes` for each of them (1047/67815)."""
    rows = store.declared().values()
    names = {str(row.slot): row.name for row in rows}
    return success({}, {"AttrNames": names, "AttrTypes": {str(row.slot): row.account_type.wire for row in rows}})


def set_attr_name(payload: Mapping[str, Any], store: Store) -> Answer:
    """Slots that the call does not name stay as they are; a taken slot keeps its name. No page says either."""
    names, types = payload.get("AttrNames"), payload.get("AttrTypes", {})
    if not isinstance(names, dict) or not names or not isinstance(types, dict):
        raise RefusalError(90001, "AttrNames is not an object of names, or AttrTypes not one of numbers")
    if not names.keys() <= set(_SLOTS):
        raise RefusalError(90033, f"slots are {_SLOTS[0]} to {_SLOTS[-1]}")
    if not types.keys() <= names.keys():
        raise RefusalError(90033, "AttrTypes names a slot that AttrNames does not")
    wanted = [_declared(slot, names[slot], types.get(slot, 0)) for slot in sorted(names)]
    with store.declaring:
        _check_against(wanted, {row.slot: row for row in store.declared().values()})
        store.declare(wanted)
    return success({})


def declare_missing(attributes: Mapping[str, AccountType], store: Store) -> None:
    """Puts names that are not declared yet into free slots; declared ones stay as they are, whatever their type.

    Raises ValueError, and declares nothing, for a name that no slot takes or when the slots do not suffice.
    """
    if not all(_is_name(name) for name in attributes):
        raise ValueError(f"an attribute's name has 1 to {MAX_NAME_BYTES} UTF-8 bytes")
    with store.declaring:
        declared = store.declared()
        missing = [name for name in attributes if name not in declared]
        free = sorted(set(range(MAX_ATTRIBUTES)) - {row.slot for row in declared.values()})
        if len(missing) > len(free):
            raise ValueError(f"{len(missing)} attributes are missing, {len(free)} of {MAX_ATTRIBUTES} slots are free")
        store.declare([Declared(slot, name, attributes[name]) for slot, name in zip(free, missing, strict=False)])


def _declared(slot: str, name: object, wire_type: object) -> Declared:
    if not isinstance(name, str) or type(wire_type) is not int:
        raise RefusalError(90001, "a name is not a string, or a type not a number")
    if not _is_name(name):
        raise RefusalError(90033, f"a name has 1 to {MAX_NAME_BYTES} bytes")
    try:
        return Declared(int(slot), name, AccountType.from_wire(wire_type))
    except ValueError:
        raise RefusalError(90033, "a type is 0 or 1") from None


def _is_name(name: str) -> bool:
    return 1 <= len(name.encode()) <= MAX_NAME_BYTES


def _check_against(wanted: list[Declared], existing: Mapping[int, Declared]) -> None:
    """Raises RefusalError 90033 with the documented ErrorInfo where a name stands in two slots (1047/60563)."""
    slot_of = {row.name: row.slot for row in existing.values()}
    for row in wanted:
        if slot_of.setdefault(row.name, row.slot) != row.slot:
            raise RefusalError(90033, f"attrName:{row.name} already exists at index:{slot_of[row.name]}")
        before = existing.get(row.slot, row)
        if before.account_type is not row.account_type:
            raise RefusalError(90033, f"the type of index:{row.slot} cannot be changed")
        if before.name != row.name:
            raise RefusalError(90033, f"index:{row.slot} is taken by another name")
