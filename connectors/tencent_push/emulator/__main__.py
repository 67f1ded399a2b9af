"""Runs the emulator by itself: `python -m connectors.tencent_push.emulator --port 8020 --data emulator.sqlite`.

Arguments in, an Emulator out, until it is interrupted; everything else is server.py's.
"""

import argparse
import os
import re
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import orjson

from connectors.tencent_push.emulator.faults import RefuseCall
from connectors.tencent_push.emulator.link import EmulatorCertificateError, RoundTrip
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
            round_trip=RoundTrip(arguments.round_trip_ms / 1000, arguments.jitter),
            tls_certificate=arguments.tls_certificate,
        )
    except (EmulatorDataError, EmulatorCertificateError) as error:
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
    for number, code in arguments.refuse_call:
        emulator.faults.add(RefuseCall(code), skip=number - 1)
    for account, code in arguments.poison:
        emulator.faults.add(RefuseCall(code), accounts=[account], times=None)
    shown = arguments.secret_key if arguments.secret_key == EMULATOR_CREDENTIALS.secret_key else "..."
    sys.stderr.write(
        f"export TENCENT_PUSH_BASE_URL={emulator.base_url} TENCENT_PUSH_SDKAPPID={arguments.sdkappid} "
        f"TENCENT_PUSH_IDENTIFIER={arguments.identifier} TENCENT_PUSH_SECRET_KEY={shown}\n"
    )
    _serve(emulator, report=arguments.report)
    return 0


def _serve(emulator: Emulator, *, report: bool) -> None:
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    with emulator:
        sys.stdout.write(f"{emulator.base_url}\n")
        sys.stdout.flush()
        if report:
            threading.Thread(target=_report_when_asked, args=(emulator,), name="report", daemon=True).start()
        stopped.wait()
    if report:
        _report(emulator)


def _report_when_asked(emulator: Emulator) -> None:
    """A line on standard input asks. It is read past `sys.stdin`: a thread that waits there breaks Python's end."""
    with suppress(OSError):  # there is no standard input
        while os.read(0, 4096):
            _report(emulator)


def _report(emulator: Emulator) -> None:
    totals = {command: asdict(each) for command, each in emulator.calls.totals().items()}
    sys.stdout.write(f"{orjson.dumps(totals).decode()}\n")
    sys.stdout.flush()


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
    _add_network(parser)
    _add_faults(parser)
    parser.add_argument(
        "--report",
        action="store_true",
        help="prints the calls' totals by command as a line of JSON: at the end, and for each line on standard input",
    )
    return parser


def _add_network(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tls-certificate", type=Path, metavar="FILE", help="PEM file with its key: serves HTTPS")
    parser.add_argument(
        "--round-trip-ms",
        type=_not_negative,
        default=0,
        metavar="MS",
        help="from a request's arrival to its answer; default %(default)s",
    )
    parser.add_argument("--jitter", type=_share, default=0.0, help="share of the round trip, up and down; default 0")


def _add_faults(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--refuse-call",
        type=_numbered_code,
        action="append",
        default=[],
        metavar="NUMBER:CODE",
        help="refuses the NUMBERth call (from 1) as a whole with CODE, once; may be repeated",
    )
    parser.add_argument(
        "--poison",
        type=_poison,
        action="append",
        default=[],
        metavar="ACCOUNT:CODE",
        help="refuses every call that names ACCOUNT as a whole with CODE; may be repeated",
    )


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


def _numbered_code(text: str) -> tuple[int, int]:
    number, _, code = text.partition(":")
    if int(number) < 1:
        raise ValueError(text)
    return int(number), int(code)


def _poison(text: str) -> tuple[str, int]:
    account, _, code = text.rpartition(":")
    return account, int(code)


def _share(text: str) -> float:
    share = float(text)
    if not 0 <= share <= 1:
        raise ValueError(text)
    return share


def _not_negative(text: str) -> int:
    number = int(text)
    if number < 0:
        raise ValueError(text)
    return number


if __name__ == "__main__":
    sys.exit(main())
