"""Who may call: the URL's fields, the signature, the app, its administrator and its region.

Pure: a request line, a host and the time go in; the command comes out, or a RefusalError with the documented code.
Quota and body are looked at afterwards, elsewhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlsplit

from connectors.tencent_push.emulator.answers import RefusalError
from connectors.tencent_push.protocol import REGION_HOSTS, Command
from connectors.tencent_push.usersig import UserSigFault, check_usersig, read_usersig

PATH_PREFIX = "/v4/timpush/"
_MAX_RANDOM = 2**32 - 1  # an unsigned 32-bit number: 1047/34620
_COMMANDS = {PATH_PREFIX + command.value: command for command in Command}


@dataclass(frozen=True, slots=True)
class App:
    """The one app that the emulator serves. The default key is the example of the public signature library."""

    sdkappid: int = 1400000000
    identifier: str = "administrator"
    secret_key: str = field(default="5bd2850fff3ecb11d7c805251c51ee463a25727bddc2385f3fa8bfee1bb93b5e", repr=False)
    region: str = "china"


@dataclass(frozen=True, slots=True)
class Target:
    """The URL of a call, taken apart; nothing in it has been checked."""

    path: str
    query: Mapping[str, str] = field(repr=False)

    @classmethod
    def parse(cls, target: str) -> "Target":
        """Also takes the absolute form that proxies send. Raises ValueError for what is no URL."""
        parts = urlsplit(target)
        return cls(parts.path, dict(parse_qsl(parts.query, keep_blank_values=True)))

    @property
    def command(self) -> Command | None:
        return _COMMANDS.get(self.path)

    @property
    def random(self) -> int | None:
        number = _decimal(self.query.get("random", ""))
        return number if number is not None and number <= _MAX_RANDOM else None


def check_access(method: str, target: Target, *, host: str, app: App, now: float) -> Command:
    """Raises RefusalError with the code of 1047/34348 for the first thing that is wrong, from the outside inwards."""
    if method != "POST":
        raise RefusalError(60002, "HTTP parsing failed: only POST is served")
    if target.command is None:
        raise RefusalError(60009, "no such service or command")
    _check_fields(target)
    if host.partition(":")[0].lower() in set(REGION_HOSTS.values()) - {REGION_HOSTS[app.region]}:
        raise RefusalError(60026, "the domain does not serve this SDKAppID")
    if _decimal(target.query["sdkappid"]) != app.sdkappid:
        raise RefusalError(70020, "no such SDKAppID")
    identifier = target.query["identifier"]
    _check_usersig(target.query["usersig"], identifier=identifier, app=app, now=now)
    if identifier != app.identifier:
        # The page of get_attr (1047/60564) does not list 90009; the general table's code for the same is 60010.
        code = 60010 if target.command is Command.GET_ATTR else 90009
        raise RefusalError(code, "the identifier is not an administrator of the app")
    return target.command


def _check_fields(target: Target) -> None:
    if "sdkappid" not in target.query:
        raise RefusalError(60012, "sdkappid is missing in the URL")
    if _decimal(target.query["sdkappid"]) is None:
        raise RefusalError(60025, "sdkappid in the URL is not a number")
    for name in ("identifier", "usersig"):
        if name not in target.query:
            raise RefusalError(60025, f"{name} is missing in the URL")
    if target.query.get("contenttype") != "json":
        raise RefusalError(60025, "contenttype in the URL is not json")
    if target.random is None:
        raise RefusalError(60002, "random in the URL is not an unsigned 32-bit number")


def _check_usersig(usersig: str, *, identifier: str, app: App, now: float) -> None:
    """Whom it was made for is compared first, so that another app's signature does not pass for a wrong key."""
    try:
        content = read_usersig(usersig)
    except ValueError:
        raise RefusalError(70003, "the UserSig cannot be read") from None
    if content.identifier != identifier:
        raise RefusalError(70013, "the UserSig was made for another identifier")
    if content.sdkappid != app.sdkappid:
        raise RefusalError(70014, "the UserSig was made for another SDKAppID")
    match check_usersig(usersig, secret_key=app.secret_key, now=now):
        case UserSigFault.MALFORMED:
            raise RefusalError(70003, "the UserSig cannot be read")
        case UserSigFault.WRONG_KEY:
            raise RefusalError(70009, "the UserSig was not made with the key of this app")
        case UserSigFault.EXPIRED:
            raise RefusalError(70001, "the UserSig has expired")
        case None:
            return


def _decimal(text: str) -> int | None:
    """The number that at most ten ASCII digits write; 32 bits need no more."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 10 else None
