"""The package's settings, made and checked from the variables of an environment that the caller hands in.

Nothing here reads `os.environ`, opens a connection or knows the emulator. No message quotes a credential: whoever
swaps two variables must not find the key in a log.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from connectors.tencent_push.client import Client, Credentials, RequestsTransport, checked_base_url, is_loopback
from connectors.tencent_push.errors import SettingsError
from connectors.tencent_push.protocol import DOCUMENTED_CALLS_PER_SECOND, REGION_HOSTS

SDKAPPID = "TENCENT_PUSH_SDKAPPID"
IDENTIFIER = "TENCENT_PUSH_IDENTIFIER"
SECRET_KEY = "TENCENT_PUSH_SECRET_KEY"  # noqa: S105 - the variable's name, no secret
REGION = "TENCENT_PUSH_REGION"
BASE_URL = "TENCENT_PUSH_BASE_URL"
CALLS_PER_SECOND = "TENCENT_PUSH_CALLS_PER_SECOND"

_CREDENTIALS = (SDKAPPID, IDENTIFIER, SECRET_KEY)


@dataclass(frozen=True, slots=True)
class Settings:
    """One app as the target. `read_timeout_seconds` exceeds the 3 s after which Tencent gives up (1047/34620)."""

    credentials: Credentials
    base_url: str
    calls_per_second: float = float(DOCUMENTED_CALLS_PER_SECOND)
    connect_timeout_seconds: float = 5.0
    read_timeout_seconds: float = 10.0

    def make_client(self) -> Client:
        """A client of its own; the caller closes it. Nothing is sent yet."""
        transport = RequestsTransport(
            connect_timeout_seconds=self.connect_timeout_seconds,
            read_timeout_seconds=self.read_timeout_seconds,
            use_environment=not is_loopback(self.base_url),
        )
        return Client(base_url=self.base_url, credentials=self.credentials, transport=transport)


def settings_from(environ: Mapping[str, str]) -> Settings | None:
    """None without credentials: then the target is the emulator. A variable that is set but blank counts as unset.

    Raises SettingsError, naming the variable and the remedy, for credentials that are half set and for any value
    that cannot be used, whether or not there are credentials.
    """
    base_url = base_url_from(environ)
    calls_per_second = calls_per_second_from(environ)
    credentials = _credentials_from(environ)
    if credentials is None:
        return None
    return Settings(credentials=credentials, base_url=base_url, calls_per_second=calls_per_second)


def base_url_from(environ: Mapping[str, str]) -> str:
    """The address that TENCENT_PUSH_BASE_URL names, else the region's; the default region is `china`."""
    region = _value(environ, REGION) or "china"
    if region not in REGION_HOSTS:
        raise SettingsError(f"{REGION} is {region!r}; it must be one of {', '.join(REGION_HOSTS)}")
    return checked_base_url(_value(environ, BASE_URL) or f"https://{REGION_HOSTS[region]}")


def calls_per_second_from(environ: Mapping[str, str]) -> float:
    """How many calls a second, per command, may reach the target; also meant for the emulator."""
    text = _value(environ, CALLS_PER_SECOND)
    if text is None:
        return float(DOCUMENTED_CALLS_PER_SECOND)
    try:
        calls_per_second = float(text)
    except ValueError:
        calls_per_second = math.nan
    if not 1 <= calls_per_second < math.inf:
        raise SettingsError(f"{CALLS_PER_SECOND} is {text!r}; it must be a number of at least 1")
    return calls_per_second


def _credentials_from(environ: Mapping[str, str]) -> Credentials | None:
    values = {name: _value(environ, name) for name in _CREDENTIALS}
    missing = [name for name, value in values.items() if value is None]
    if len(missing) == len(values):
        return None
    if missing:
        raise SettingsError(
            f"The credentials are half set: {' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing. "
            f"Set all of {', '.join(_CREDENTIALS)} for a live app, or none of them for the emulator."
        )
    return Credentials(
        sdkappid=_sdkappid(str(values[SDKAPPID])),
        identifier=str(values[IDENTIFIER]),
        secret_key=str(values[SECRET_KEY]),
    )


def _sdkappid(text: str) -> int:
    """The value is not quoted: it may be the key, set in the wrong place."""
    if not (text.isascii() and text.isdecimal() and len(text) <= 10 and int(text) > 0):
        raise SettingsError(f"{SDKAPPID} is not a whole number; the app's console shows it, for example 1400000000")
    return int(text)


def _value(environ: Mapping[str, str], name: str) -> str | None:
    return environ.get(name, "").strip() or None
