"""The API by hand: declare attributes, list them, read accounts, start the emulator.

Reads the environment, prints and ends the process; whatever could be of use to others stands in the modules beside it.
This is the one place that declares attribute names: a sync's run never does.
"""

import argparse
import os
import sys
from collections.abc import Iterable, Mapping, Sequence

import orjson

from connectors.tencent_push.client import Client, Credentials, is_loopback
from connectors.tencent_push.emulator import EMULATOR_CREDENTIALS
from connectors.tencent_push.emulator.__main__ import main as emulator_main
from connectors.tencent_push.errors import SettingsError, TargetUnreachableError, TencentPushError, lookup
from connectors.tencent_push.protocol import MAX_ACCOUNTS_PER_CALL, MAX_ATTRIBUTES, MAX_NAME_BYTES, AccountType
from connectors.tencent_push.settings import BASE_URL, Settings, base_url_from, settings_from

Slots = Mapping[int, tuple[str, AccountType]]


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """0 when all went well, 1 with one line on standard error when it did not, 2 for a wrong command line."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["emulator"]:  # it has its own command line
        return emulator_main(arguments[1:])
    options = _parser().parse_args(arguments)
    try:
        client = _settings(environ).make_client()
        try:
            return _run(client, options)
        finally:
            client.close()
    except TencentPushError as error:
        sys.stderr.write(f"{error}\n")
        return 1


def slots_for(wanted: Mapping[str, AccountType], *, declared: Slots) -> dict[int, tuple[str, AccountType]]:
    """The free slots that take the names which are not declared yet; empty when all of them are.

    Raises SettingsError for a name of no or too many bytes, for a change of account type (Tencent never allows it:
    1047/60563), and for more than ten attributes in all.
    """
    known = dict(declared.values())
    for name, account_type in wanted.items():
        if not 1 <= len(name.encode()) <= MAX_NAME_BYTES:
            raise SettingsError(f"The name {name!r} must have 1 to {MAX_NAME_BYTES} UTF-8 bytes.")
        if known.get(name, account_type) is not account_type:
            raise SettingsError(
                f"{name} is declared for {known[name]}, and that can never be changed; "
                f"declare another name for {account_type}."
            )
    new = [(name, account_type) for name, account_type in wanted.items() if name not in known]
    free = [slot for slot in range(MAX_ATTRIBUTES) if slot not in declared]
    if len(new) > len(free):
        raise SettingsError(
            f"An app has {MAX_ATTRIBUTES} attributes, {len(declared)} are declared: there is room for {len(free)}, "
            f"not for {', '.join(name for name, _ in new)}. Nothing was declared."
        )
    return dict(zip(free, new, strict=False))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m connectors.tencent_push",
        description="The attribute API of Tencent Cloud Chat Push, by hand. Target and credentials come from the "
        "TENCENT_PUSH_* variables.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    declare = commands.add_parser("declare", help="declare attributes in free slots; they can never be changed")
    declare.add_argument("names", nargs="+", metavar="NAME[:registration_id]")
    commands.add_parser("attributes", help="list the declared attributes")
    get_attr = commands.add_parser("get-attr", help="print the attributes of accounts, one JSON object a line")
    get_attr.add_argument("accounts", nargs="+", metavar="ACCOUNT")
    commands.add_parser("emulator", help="start the stand-in for the API (`emulator --help`)")
    return parser


def _run(client: Client, options: argparse.Namespace) -> int:
    if options.command == "declare":
        return _declare(client, _wanted(options.names))
    if options.command == "attributes":
        return _attributes(client)
    return _get_attr(client, options.accounts)


def _settings(environ: Mapping[str, str]) -> Settings:
    """Without credentials there is only an emulator to talk to, and only where the base URL says that one runs."""
    settings = settings_from(environ)
    if settings is not None:
        return settings
    base_url = base_url_from(environ)
    if not is_loopback(base_url):
        raise SettingsError(
            "No credentials are set. Set TENCENT_PUSH_SDKAPPID, TENCENT_PUSH_IDENTIFIER and TENCENT_PUSH_SECRET_KEY; "
            f"or start the emulator and set {BASE_URL} to its address."
        )
    credentials = Credentials(
        sdkappid=EMULATOR_CREDENTIALS.sdkappid,
        identifier=EMULATOR_CREDENTIALS.identifier,
        secret_key=EMULATOR_CREDENTIALS.secret_key,
    )
    return Settings(credentials=credentials, base_url=base_url)


def _wanted(arguments: Iterable[str]) -> dict[str, AccountType]:
    wanted: dict[str, AccountType] = {}
    for argument in arguments:
        name, colon, type_name = argument.partition(":")
        if colon and type_name not in set(AccountType):
            raise SettingsError(f"{argument!r}: after the colon stands one of {', '.join(AccountType)}.")
        account_type = AccountType(type_name) if colon else AccountType.USER_ID
        if wanted.setdefault(name, account_type) is not account_type:
            raise SettingsError(f"{name} is named for both account types; an attribute has one.")
    return wanted


def _declare(client: Client, wanted: Mapping[str, AccountType]) -> int:
    before = client.get_attr_slots()
    new = slots_for(wanted, declared=before)
    if new:
        # All slots are named, the taken ones as they are: no page says what becomes of a slot that is left out.
        client.set_attr_name({**before, **new})
        _check_declared({**before, **new}, client.get_attr_slots())
    for name, account_type in wanted.items():
        state = "declared" if name in dict(new.values()) else "was declared already"
        _print(f"{name} ({account_type}) {state}")
    _print(f"{len(before) + len(new)} of {MAX_ATTRIBUTES} attributes are in use on {client.host}")
    return 0


def _check_declared(expected: Slots, found: Slots) -> None:
    if found != expected:
        raise TargetUnreachableError(
            "set_attr_name was accepted, but the app does not show what was declared; it may need a moment. "
            "Look with `python -m connectors.tencent_push attributes` before declaring again."
        )


def _attributes(client: Client) -> int:
    slots = client.get_attr_slots()
    for slot, (name, account_type) in sorted(slots.items()):
        _print(f"{slot}  {account_type:<15}  {name}")
    _print(f"{len(slots)} of {MAX_ATTRIBUTES} attributes are in use on {client.host}")
    return 0


def _get_attr(client: Client, accounts: Sequence[str]) -> int:
    """The accounts that could not be read go to standard error, with their code, and make it end with 1."""
    failed = False
    distinct = list(dict.fromkeys(accounts))
    for start in range(0, len(distinct), MAX_ACCOUNTS_PER_CALL):
        batch = distinct[start : start + MAX_ACCOUNTS_PER_CALL]
        attributes, errors = client.get_attr(batch)
        why = {error.account: f"{error.code} {lookup(error.code).meaning}" for error in errors}
        for account in batch:
            if account in attributes:
                _print(orjson.dumps({"account": account, "attributes": attributes[account]}).decode())
            else:
                sys.stderr.write(f"{account}: {why.get(account, 'the answer does not name this account')}\n")
                failed = True
    return int(failed)


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main())
