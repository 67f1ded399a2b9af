"""An emulator on a port of its own, a clock that tests move by hand, and a caller with the official signature.

The caller shares nothing with our client: http.client below, the vendor's package for the signature.
"""

import http.client
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import orjson
import pytest
from TLSSigAPIv2 import TLSSigAPIv2

from connectors.tencent_push.emulator import EMULATOR_CREDENTIALS, Emulator
from connectors.tencent_push.protocol import AccountType


class ManualClock:
    """Stands still until a test moves it."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Caller:
    """`call("set_attr", body)` -> the decoded reply. Keyword arguments replace the URL's fields; None drops one."""

    def __init__(self, emulator: Emulator) -> None:
        self.host = emulator.base_url.removeprefix("http://")

    def target(self, command: str, **replaced: object) -> str:
        app = EMULATOR_CREDENTIALS
        query: dict[str, object] = {
            "usersig": TLSSigAPIv2(app.sdkappid, app.secret_key).gen_sig(app.identifier),
            "identifier": app.identifier,
            "sdkappid": app.sdkappid,
            "random": 4294967295,
            "contenttype": "json",
        }
        fields = {name: value for name, value in (query | replaced).items() if value is not None}
        return f"/v4/timpush/{command}?{urlencode(fields)}"

    def response(
        self, target: str, body: bytes, *, method: str = "POST", headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self.host, timeout=10)
        try:
            connection.request(method, target, body, headers or {})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def __call__(self, command: str, body: object = None, **replaced: object) -> Any:
        content = body if isinstance(body, bytes) else orjson.dumps({} if body is None else body)
        status, reply = self.response(self.target(command, **replaced), content)
        assert status == 200
        return orjson.loads(reply)

    def code(self, command: str, body: object = None, **replaced: object) -> int:
        return int(self(command, body, **replaced)["ErrorCode"])

    def set(self, account: str, **attributes: object) -> Any:
        return self("set_attr", {"UserAttrs": [{"To_Account": account, "Attrs": attributes}]})

    def get(self, account: str) -> dict[str, str]:
        (user,) = self("get_attr", {"To_Account": [account]})["UserAttrs"]
        return dict(user["Attrs"])


@pytest.fixture
def clock() -> ManualClock:
    """The real time when the test begins, since the official package signs with the real time."""
    return ManualClock(time.time())


@pytest.fixture
def data_file(tmp_path: Path) -> Path:
    return tmp_path / "emulator.sqlite"


@pytest.fixture
def emulator(data_file: Path, clock: ManualClock) -> Iterator[Emulator]:
    """Without a quota; declared are sex and city for UserIDs, device_city for RegistrationIDs."""
    with Emulator(data_file, calls_per_second=None, clock=clock) as running:
        running.declare(
            {
                "sex": AccountType.USER_ID,
                "city": AccountType.USER_ID,
                "device_city": AccountType.REGISTRATION_ID,
            }
        )
        yield running


@pytest.fixture
def make_call() -> type[Caller]:
    return Caller


@pytest.fixture
def call(emulator: Emulator) -> Caller:
    return Caller(emulator)


@pytest.fixture
def in_threads() -> Callable[[Callable[[int], Any], int], list[Any]]:
    """Runs a function with 0 to n-1, each in a thread of its own; gives back its results in that order."""

    def run(function: Callable[[int], Any], count: int) -> list[Any]:
        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(function, range(count)))

    return run
