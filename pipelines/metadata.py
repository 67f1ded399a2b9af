"""What the UI shows of an asset: row counts, column schemas, lineage, places. Counts and names only, never a value."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq

from connectors.profiles.errors import without_secrets
from connectors.profiles.lake.lake_table import TableVersion
from connectors.profiles.parquet import Manifest
from connectors.tencent_push.protocol import MAX_ACCOUNTS_PER_CALL, AccountType, Command
from connectors.tencent_push.report import SinkReport, WaitCause
from pipelines.frames import Frame, frame_columns
from pipelines.freshness import Extraction, Newest, hours
from pipelines.mapping import SyncMapping
from pipelines.push import Push
from pipelines.push_result import PushResult
from pipelines.store import Store
from pipelines.target import Target

ROW_COUNT, COLUMN_SCHEMA, COLUMN_LINEAGE, URI = (
    "dagster/row_count", "dagster/column_schema", "dagster/column_lineage", "dagster/uri",
)  # fmt: skip


def column_schema(schema: pa.Schema) -> dg.TableSchema:
    return dg.TableSchema(columns=[dg.TableColumn(name=field.name, type=str(field.type)) for field in schema])


def of_target(target: Target) -> dict[str, Any]:
    """Every asset says where it points: the emulator is never mistaken for a live app."""
    return {
        "target": target.host,
        "target_is_emulator": target.is_emulator,
        "quota_calls_per_second": target.calls_per_second,  # for each command; what was made of it: of_acknowledged
    }


def of_profiles(extraction: Extraction, mapping: SyncMapping) -> dict[str, Any]:
    """A warehouse is shown without its password."""
    manifest, warehouse = extraction.manifest, mapping.source.warehouse
    shown = [file.path for file in manifest.files[:20]]
    missing = {
        each.column: {"files": each.files, "profiles": each.rows, "first_file": each.first_file}
        for each in manifest.missing()
    }
    facts = {"missing_columns": dg.MetadataValue.json(missing)} if missing else {}
    return facts | {
        ROW_COUNT: manifest.rows,
        COLUMN_SCHEMA: column_schema(manifest.schema),
        URI: _place(manifest, shown[0]),
        "source": str(mapping.source.kind) if warehouse is None else without_secrets(warehouse.uri),
        **_table_version(manifest.table),
        "files": len(manifest.files),
        "first_files": dg.MetadataValue.json(shown),
        "bytes": manifest.bytes,
        **({"partition": manifest.partition} if manifest.partition else {}),
        **({"partitions_passed_over": "; ".join(manifest.passed_over)} if manifest.passed_over else {}),
        "seconds": round(extraction.seconds, 3),
        **_newness(extraction.newest),
    }


def _place(manifest: Manifest, first: str) -> str:
    if manifest.table is not None:
        return manifest.table.table
    return first if len(manifest.files) == 1 else first.rpartition("/")[0]


def _table_version(table: TableVersion | None) -> dict[str, Any]:
    if table is None:
        return {}
    at = {"table_committed_at": dg.MetadataValue.timestamp(table.committed_at)} if table.committed_at else {}
    return {"table": table.table, "table_version": table.id, **at}


def _newness(newest: Newest | None) -> dict[str, Any]:
    """Of the source's newest `updated_at`; nothing where it has none."""
    if newest is None:
        return {}
    facts: dict[str, Any] = {"updated_at_told_by": "scan" if newest.is_scanned else "footers"}
    if newest.updated_at is not None and newest.age is not None:
        facts["newest_updated_at"] = dg.MetadataValue.timestamp(newest.updated_at)
        facts["age_hours"] = round(hours(newest.age), 2)
    if newest.future:
        facts["updated_in_the_future"] = newest.future
    return facts


def of_frame(frame: Frame, mapping: SyncMapping, *, profiles: dg.AssetKey, push: Push) -> dict[str, Any]:
    """The frame's numbers and its dry run: how many calls it will take, and how long at the quota."""
    set_calls, remove_calls = _calls(frame.set_accounts), _calls(frame.remove_accounts)
    counts = frame.counts
    return {
        ROW_COUNT: frame.rows,
        COLUMN_SCHEMA: column_schema(pq.read_schema(frame.path)),
        COLUMN_LINEAGE: _lineage(frame_columns(mapping, frame.account_type), profiles),
        URI: push.store.address(frame.path),
        "profiles": counts.profiles,
        "without_account": counts.without_account,
        "superseded": counts.superseded,
        "invalid": counts.invalid,
        "unchanged": counts.unchanged,
        "changed": counts.changed,
        "departed": frame.departed,
        "departed_to_remove": counts.departed,
        "set_calls": set_calls,
        "remove_calls": remove_calls,
        "seconds_at_the_quota": round(max(set_calls, remove_calls) / push.target.calls_per_second, 1),
        "changed_attributes": dg.MetadataValue.json(dict(frame.changed_attributes)),
    }


def of_acknowledged(result: PushResult, folders: dict[AccountType, str]) -> dict[str, Any]:
    """Plain numbers under plain names, so that the UI plots them over the runs."""
    reports = list(result.reports.values())
    facts: dict[str, Any] = {
        ROW_COUNT: sum(tally.acknowledged for tally in result.tallies.values()),
        "calls": sum(report.calls.total() for report in reports),
        "planned_calls": sum(planned.total for planned in result.planned.values()),
        "calls_taken_over": result.unsettled_calls,
        "withheld": sum(result.withheld.values()),
        "resent_rows": sum(report.resent_rows for report in reports),
        "slow_downs": sum(report.slow_downs for report in reports),
        "folders": dg.MetadataValue.json({kind.value: folder for kind, folder in folders.items()}),
    }
    facts |= result.tally_counts() | _sums_of(reports)
    for kind, report in result.reports.items():
        facts |= {f"{kind}_{name}": number for name, number in _speed_of(report).items()}
    for kind, planned in result.planned.items():
        facts[f"{kind}_planned_calls"] = planned.total
        quota = result.reports[kind].quota if kind in result.reports else 0.0
        if quota:
            facts[f"{kind}_planned_seconds"] = round(planned.seconds(quota), 1)
    if result.stop:
        facts["stopped"] = result.stop.text
    return facts


def _sums_of(reports: Sequence[SinkReport]) -> dict[str, int | float]:
    """Calls by command, waits by cause and refusals by reason and code, over all account types.

    Every command and every cause is there in every run, so that a plot has no gaps.
    """
    calls = {
        f"calls_{command}": sum(report.calls[command] for report in reports)
        for command in (Command.SET_ATTR, Command.REMOVE_ATTR)
    }
    waits = {
        f"waits_seconds_{cause}": round(sum(report.waits_seconds.get(cause, 0.0) for report in reports), 3)
        for cause in WaitCause
    }
    refused: Counter[str] = Counter()
    for report in reports:
        for (reason, code), commands in report.refusals.items():
            refused[f"refused_{reason}" if code is None else f"refused_{reason}_{code}"] += commands
    return calls | waits | dict(refused)


def _speed_of(report: SinkReport) -> dict[str, int | float]:
    """Of one account type's push; no rate, share or latency where there was no call."""
    facts: dict[str, int | float] = {"seconds": round(report.seconds, 1)}
    if report.calls.total():
        facts["calls_per_second"] = round(report.calls_per_second, 2)
        facts["quota_use"] = round(report.quota_use, 4)
    for percent in (50, 95, 99):
        latency_seconds = report.latencies.percentile(percent)
        if latency_seconds is not None:
            facts[f"latency_p{percent}_ms"] = round(latency_seconds * 1000, 1)
    return facts


def of_file(path: Path, rows: int, *, store: Store) -> dict[str, Any]:
    return {ROW_COUNT: rows, COLUMN_SCHEMA: column_schema(pq.read_schema(path)), URI: store.address(path)}


def _calls(rows: int) -> int:
    return -(-rows // MAX_ACCOUNTS_PER_CALL)


def _lineage(columns: Iterable[tuple[str, str]], profiles: dg.AssetKey) -> dg.TableColumnLineage:
    return dg.TableColumnLineage(
        {name: [dg.TableColumnDep(asset_key=profiles, column_name=source)] for name, source in columns}
    )
