"""dlt with a destination of its own: rows are extracted to files, then loaded batch by batch, `parallel` files at once.

Only loading is measured. Started again, it goes on with what is pending, as `pipeline.run` does.
"""

import os

from tests.benchmarks.push.task import BATCH_ROWS, NAMES, Meter, Task, records, user_attrs

TASK = Task.from_command_line()
FILE_ROWS = -(-TASK.rows // TASK.parallel)
os.environ.update(  # read when dlt is imported
    {
        "RUNTIME__DLTHUB_TELEMETRY": "false",
        "RUNTIME__LOG_LEVEL": "CRITICAL",
        "LOAD__WORKERS": str(TASK.parallel),
        "DATA_WRITER__FILE_MAX_ITEMS": str(FILE_ROWS),
        "DATA_WRITER__BUFFER_MAX_ITEMS": str(min(FILE_ROWS, 5000)),
        "DLT_DATA_DIR": str(TASK.folder),
    }
)

import dlt  # noqa: E402  after dlt's settings are in the environment
import requests  # noqa: E402  after dlt's settings are in the environment
import requests.adapters  # noqa: E402  after dlt's settings are in the environment
from dlt.common.schema import TColumnSchema, TTableSchema  # noqa: E402  after dlt's settings are in the environment
from dlt.common.typing import TDataItems  # noqa: E402  after dlt's settings are in the environment

TEXT: dict[str, TColumnSchema] = {name: {"data_type": "text"} for name in NAMES}
SESSION = requests.Session()
SESSION.mount("http", requests.adapters.HTTPAdapter(pool_maxsize=TASK.parallel))


@dlt.destination(batch_size=BATCH_ROWS, name="push", naming_convention="direct")
def push(items: TDataItems, table: TTableSchema) -> None:
    response = SESSION.post(TASK.call_url, json={"UserAttrs": [user_attrs(record) for record in items]}, timeout=10)
    response.raise_for_status()
    reply = response.json()
    if reply["ErrorCode"] != 0:
        raise RuntimeError(f"refused with code {reply['ErrorCode']}: {reply['ErrorInfo']}")


def main() -> None:
    pipeline = dlt.pipeline("push", destination=push, pipelines_dir=str(TASK.folder))
    if not pipeline.has_pending_data:
        pipeline.extract(records(TASK.rows), table_name="users", columns=TEXT)  # else it makes timestamps of texts
    pipeline.normalize()
    meter = Meter()
    error: Exception | None = None
    claimed_rows = 0
    try:
        info = pipeline.load()
        info.raise_on_failed_jobs()
        claimed_rows = TASK.rows  # loaded, no failed jobs
    except Exception as failure:  # noqa: BLE001 - whatever it is, it is what dlt reports
        error = failure
    meter.tell(claimed_rows=claimed_rows, error=error)


if __name__ == "__main__":
    main()
