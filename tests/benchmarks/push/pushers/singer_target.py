"""A target made with the Meltano SDK, fed with the messages of a tap; batches of 100."""

import json
import logging
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import requests
from singer_sdk.sinks import BatchSink
from singer_sdk.target_base import Target

from tests.benchmarks.push.task import BATCH_ROWS, NAMES, Meter, Task, records, user_attrs

CLAIMED = {"rows": 0}


class PushSink(BatchSink):
    max_size = BATCH_ROWS
    session = requests.Session()

    def process_batch(self, context: dict[str, Any]) -> None:
        batch = [user_attrs(record) for record in context["records"]]
        response = self.session.post(self.config["call_url"], json={"UserAttrs": batch}, timeout=10)
        response.raise_for_status()
        reply = response.json()
        if reply["ErrorCode"] != 0:
            raise RuntimeError(f"refused with code {reply['ErrorCode']}: {reply['ErrorInfo']}")
        CLAIMED["rows"] += len(batch)


class PushTarget(Target):
    name = "target-push"
    default_sink_class = PushSink
    config_jsonschema = {"type": "object", "properties": {"call_url": {"type": "string"}}}  # noqa: RUF012  the SDK reads it from the class


def main() -> None:
    logging.disable(logging.CRITICAL)
    task = Task.from_command_line()
    messages = task.folder / "messages.jsonl"
    _write_messages(messages, task.rows)
    meter = Meter()
    error: Exception | None = None
    with messages.open(encoding="utf-8") as lines, redirect_stdout(sys.stderr):  # its state is no result of ours
        try:
            PushTarget(config={"call_url": task.call_url}).listen(lines)
        except Exception as failure:  # noqa: BLE001 - whatever it is, it is what the target reports
            error = failure
    meter.tell(claimed_rows=CLAIMED["rows"], error=error)


def _write_messages(file: Path, rows: int) -> None:
    properties = {name: {"type": "string"} for name in ("account", *NAMES)}
    schema = {"type": "SCHEMA", "stream": "users", "key_properties": ["account"], "schema": {"properties": properties}}
    with file.open("w", encoding="utf-8") as lines:
        lines.write(json.dumps(schema) + "\n")
        for record in records(rows):
            lines.write(json.dumps({"type": "RECORD", "stream": "users", "record": record}) + "\n")
        lines.write(json.dumps({"type": "STATE", "value": {"rows": rows}}) + "\n")


if __name__ == "__main__":
    main()
