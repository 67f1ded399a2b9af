"""This project's sink: its own client, its ledger on disk, and what the ledger knows is not sent again."""

from collections.abc import Iterator
from contextlib import closing

from connectors.tencent_push.client import Client, Credentials, RequestsTransport, is_loopback
from connectors.tencent_push.emulator import EMULATOR_CREDENTIALS
from connectors.tencent_push.ledger import Ledger, read_ledger
from connectors.tencent_push.outcomes import Change, OutcomeKind
from connectors.tencent_push.pacing import Quota
from connectors.tencent_push.protocol import Command
from connectors.tencent_push.sink import Sink
from tests.benchmarks.push.task import Meter, Task, account_of, attributes_of


def main() -> None:
    task, meter = Task.from_command_line(), Meter()
    ledger_file = task.folder / "ledger"
    known = set(read_ledger(ledger_file).acknowledged[Command.SET_ATTR].tolist()) if ledger_file.exists() else set()
    with (
        closing(_client(task.base_url)) as client,
        closing(Ledger.open(ledger_file, {"frame": "benchmark"})) as ledger,
        Sink(client, ledger, quota=Quota(task.calls_per_second)) as sink,
    ):
        for _ in sink.push(_changes(task.rows, known)):
            pass
    report = sink.report
    meter.tell(
        claimed_rows=len(known) + report.changes[OutcomeKind.ACKNOWLEDGED],
        named_rows=report.changes.total() - report.changes[OutcomeKind.ACKNOWLEDGED],
        error=report.stop.text if report.stop is not None else None,
    )


def _changes(rows: int, known: set[int]) -> Iterator[Change]:
    for number in range(rows):
        if number not in known:
            yield Change(number, account_of(number), attributes_of(number))


def _client(base_url: str) -> Client:
    """As for a live app behind HTTPS: the certificates come from the environment."""
    app = EMULATOR_CREDENTIALS
    return Client(
        base_url=base_url,
        credentials=Credentials(app.sdkappid, app.identifier, app.secret_key),
        transport=RequestsTransport(use_environment=base_url.startswith("https://") or not is_loopback(base_url)),
    )


if __name__ == "__main__":
    main()
