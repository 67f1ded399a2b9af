"""The engine for every test here, one per test file since its tables are replaced by name; and an app to push to."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from connectors.tencent_push.emulator import EMULATOR_CREDENTIALS, Emulator
from pipelines.engine import Engine


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with Engine(tmp_path_factory.mktemp("engine"), memory_limit="1GB") as opened:
        yield opened


@pytest.fixture
def live_app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """An app that syncs take for a live one: it outlives their runs, and its faults can be scripted."""
    with Emulator(tmp_path / "live.sqlite", calls_per_second=None) as emulator:
        settings = {
            "TENCENT_PUSH_SDKAPPID": str(EMULATOR_CREDENTIALS.sdkappid),
            "TENCENT_PUSH_IDENTIFIER": EMULATOR_CREDENTIALS.identifier,
            "TENCENT_PUSH_SECRET_KEY": EMULATOR_CREDENTIALS.secret_key,
            "TENCENT_PUSH_BASE_URL": emulator.base_url,
            "TENCENT_PUSH_CALLS_PER_SECOND": "1000",
            "ATTRIBUTE_SYNC_DATA": str(tmp_path / "data"),
            "XDG_STATE_HOME": str(tmp_path / "state"),
        }
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        yield emulator
