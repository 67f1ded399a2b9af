"""Runs the emulator by itself: `python -m connectors.tencent_push.emulator --port 8020 --data emulator.sqlite`.

Arguments in, an Emulator out, until it is interrupted; everything else is server.py's.
"""

import argparse
import re
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from connectors.tencent_push.emulator.server import EMULATOR_CREDENTIALS, Emulator
from connectors.tencent_push.emulator.store import UNKNOWN_ACCOUNTS, EmulatorDataError
from connectors.tencent_push.protocol import DOCUMENTED_CALLS_PER_SECOND, REGION_HOSTS, AccountType


def main(argv: Sequence[str] | None = None) -> int:
    """Serves until SIGINT or SIGTERM, then 0; 1 when the port or the data file cannot be used."""
    arguments = _parser().parse_args(argv)
    try:
        emulator = Emulator(
            arguments.data,
            port=arguments.port,
            calls_per_second=arguments.calls_per_second or None,
            sdkappid=arguments.sdkappid,
            identifier=arguments.identifier,
            secret_key=arguments.secret_key,
            region=arguments.region,
            unknown_accounts=arguments.unknown or UNKNOWN_ACCOUNTS,
        )
    except EmulatorDataError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"port {arguments.port} cannot be used ({error.strerror}); name another one with --port\n")
        return 1
    try:
        emulator.declare(dict(arguments.declare))
    except ValueError as error:
        emulator.close()
        sys.stderr.write(f"{error}\n")
        return 1
    _serve(emulator)
    return 0


def _serve(emulator: Emulator) -> None:
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    with emulator:
        sys.stdout.write(f"{emulator.base_url}\n")
        sys.stdout.flush()
        stopped.wait()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m connectors.tencent_push.emulator",
        description="A strict stand-in for Tencent Push's attribute API, on loopback. Prints its address, then serves.",
    )
    defaults = EMULATOR_CREDENTIALS
    parser.add_argument("--port", type=_port, default=0, help="0 takes a free one (default)")
    parser.add_argument("--data", type=Path, required=True, metavar="FILE", help="SQLite file that keeps the state")
    parser.add_argument("--sdkappid", type=int, default=defaults.sdkappid, help="default %(default)s")
    parser.add_argument("--identifier", default=defaults.identifier, help="the administrator; default %(default)s")
    parser.add_argument("--secret-key", default=defaults.secret_key, help="default: the documented example key")
    parser.add_argument("--region", choices=sorted(REGION_HOSTS), default=defaults.region, help="default %(default)s")
    parser.add_argument(
        "--calls-per-second",
        type=_not_negative,
        default=DOCUMENTED_CALLS_PER_SECOND,
        help="quota per command; 0 for none; default %(default)s",
    )
    parser.add_argument(
        "--declare",
        type=_attribute,
        action="append",
        default=[],
        metavar="NAME[:TYPE]",
        help="declares an attribute that is missing; TYPE is user_id (default) or registration_id; may be repeated",
    )
    parser.add_argument(
        "--unknown",
        type=_pattern,
        action="append",
        metavar="REGEX",
        help=f"accounts that begin like this are unknown; may be repeated; default {' '.join(UNKNOWN_ACCOUNTS)}",
    )
    return parser


def _attribute(text: str) -> tuple[str, AccountType]:
    name, _, account_type = text.partition(":")
    return name, AccountType(account_type or AccountType.USER_ID)


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65535:
        raise ValueError(text)
    return number


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no regular expression: {error}") from error
    return text


def _not_negative(text: str) -> int:
    number = int(text)
    if number < 0:
        raise ValueError(text)
    return number


if __name__ == "__main__":
    sys.exit(main())
