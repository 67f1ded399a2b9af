"""Makes and reads a UserSig, the signature that every call carries, and knows when one ends (1047/34385).

The form is TLSSigAPIv2: a JSON object with an HMAC-SHA256 under the app's secret key, deflated, in a base64 of its own
alphabet. Nothing here sends anything or reads the environment; a signature or key stands in no text that this module
makes.
"""

import base64
import binascii
import hashlib
import hmac
import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import orjson

DEFAULT_EXPIRE_SECONDS = 86_400  # Tencent advises 24 hours at least: 1047/34348, row 70001
_MAX_JSON_BYTES = 65_536  # a signature's JSON has some 200 bytes; what inflates further is none
_TO_WIRE = str.maketrans("+/=", "*-_")
_FROM_WIRE = str.maketrans("*-_", "+/=")


@dataclass(frozen=True, slots=True)
class UserSigContent:
    """What a signature says about itself; says nothing about whether it is genuine. Times are Unix seconds."""

    sdkappid: int
    identifier: str
    made_at: int
    expire_seconds: int
    signature: str = field(repr=False)
    userbuf: str | None = field(default=None, repr=False)

    @property
    def ends_at(self) -> int:
        return self.made_at + self.expire_seconds


class UserSigFault(StrEnum):
    """Why a signature is refused; each has its own code in the API."""

    MALFORMED = "malformed"
    WRONG_KEY = "wrong_key"
    EXPIRED = "expired"


def make_usersig(
    *, sdkappid: int, identifier: str, secret_key: str, now: int, expire_seconds: int = DEFAULT_EXPIRE_SECONDS
) -> str:
    """A signature that holds from `now` (Unix seconds) for `expire_seconds`; only `A-Za-z0-9*-_`, so URL-safe."""
    content = UserSigContent(
        sdkappid=sdkappid, identifier=identifier, made_at=now, expire_seconds=expire_seconds, signature=""
    )
    body = {
        "TLS.ver": "2.0",
        "TLS.identifier": identifier,
        "TLS.sdkappid": sdkappid,
        "TLS.expire": expire_seconds,
        "TLS.time": now,
        "TLS.sig": _hmac(content, secret_key=secret_key),
    }
    return base64.b64encode(zlib.compress(orjson.dumps(body))).decode("ascii").translate(_TO_WIRE)


def read_usersig(usersig: str) -> UserSigContent:
    """What the signature says, unverified. Raises ValueError, without quoting it, for what is no signature."""
    try:
        packed = base64.b64decode(usersig.translate(_FROM_WIRE), validate=True)
        inflater = zlib.decompressobj()
        body = orjson.loads(inflater.decompress(packed, _MAX_JSON_BYTES))
        whole = inflater.eof and not inflater.unused_data
        content = _content_of(body) if whole else None
    except (binascii.Error, zlib.error, KeyError, TypeError, ValueError):
        content = None
    if content is None:
        raise ValueError("this is not a UserSig of the TLSSigAPIv2 form")
    return content


def check_usersig(usersig: str, *, secret_key: str, now: float) -> UserSigFault | None:
    """None for a genuine signature that has not ended by `now`; whom it is for is the caller's to compare."""
    try:
        content = read_usersig(usersig)
    except ValueError:
        return UserSigFault.MALFORMED
    if not hmac.compare_digest(_hmac(content, secret_key=secret_key).encode(), content.signature.encode()):
        return UserSigFault.WRONG_KEY
    return UserSigFault.EXPIRED if now >= content.ends_at else None


class UserSigSource:
    """The current signature of one administrator, made anew at half its life. Safe to share between threads."""

    def __init__(
        self,
        *,
        sdkappid: int,
        identifier: str,
        secret_key: str,
        clock: Callable[[], float] = time.time,
        expire_seconds: int = DEFAULT_EXPIRE_SECONDS,
    ) -> None:
        self._sdkappid = sdkappid
        self._identifier = identifier
        self._secret_key = secret_key
        self._clock = clock
        self._expire_seconds = expire_seconds
        self._lock = threading.Lock()
        self._usersig = ""
        self._made_at = 0.0

    def current(self) -> str:
        """A signature with at least half its life left, also after the clock was set back."""
        with self._lock:
            age_seconds = self._clock() - self._made_at
            if not self._usersig or not 0 <= age_seconds < self._expire_seconds / 2:
                self._make()
            return self._usersig

    def renew(self) -> None:
        """Makes a new one at once: the API called the current one expired or unreadable."""
        with self._lock:
            self._make()

    def _make(self) -> None:
        now = self._clock()
        self._usersig = make_usersig(
            sdkappid=self._sdkappid,
            identifier=self._identifier,
            secret_key=self._secret_key,
            now=int(now),
            expire_seconds=self._expire_seconds,
        )
        self._made_at = int(now)


def _hmac(content: UserSigContent, *, secret_key: str) -> str:
    """`TLS.sig`: the order of these lines is part of the form."""
    lines = (
        f"TLS.identifier:{content.identifier}\n"
        f"TLS.sdkappid:{content.sdkappid}\n"
        f"TLS.time:{content.made_at}\n"
        f"TLS.expire:{content.expire_seconds}\n"
    )
    if content.userbuf is not None:
        lines += f"TLS.userbuf:{content.userbuf}\n"
    digest = hmac.digest(secret_key.encode(), lines.encode(), hashlib.sha256)
    return base64.b64encode(digest).decode("ascii")


def _content_of(body: Any) -> UserSigContent | None:
    """None where a field has another type than the form's; raises KeyError or TypeError where one is missing."""
    numbers = (body["TLS.sdkappid"], body["TLS.time"], body["TLS.expire"])
    texts = (body["TLS.identifier"], body["TLS.sig"])
    userbuf = body.get("TLS.userbuf")
    if any(type(number) is not int for number in numbers) or any(not isinstance(text, str) for text in texts):
        return None
    if body["TLS.ver"] != "2.0" or not (userbuf is None or isinstance(userbuf, str)):
        return None
    return UserSigContent(
        sdkappid=numbers[0],
        identifier=texts[0],
        made_at=numbers[1],
        expire_seconds=numbers[2],
        signature=texts[1],
        userbuf=userbuf,
    )
