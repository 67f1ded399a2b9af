"""The first asset of a sync: where its profiles are, how many, how new; and whether they are new enough.

Reading the source is also what a dry run and an adoption begin with.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import dagster as dg

from connectors.profiles.parquet import Manifest
from pipelines import checks, metadata
from pipelines.assets import Sync, every_few_seconds, told_plainly
from pipelines.engine import Engine
from pipelines.extraction import extract_profiles
from pipelines.freshness import Extraction, newest_update
from pipelines.resources import Environment, EnvironmentResource
from pipelines.runs import is_without_guards, partition_of
from pipelines.source_options import SourceKind


def read_profiles(
    sync: Sync, current: Environment, *, destination: Path, tell: Callable[[str], None], partition: str | None = None
) -> Extraction:
    """The source's profiles; what comes from elsewhere is written to `destination`. `partition`: this run's choice."""
    began = time.monotonic()
    manifest = extract_profiles(
        sync.mapping,
        base=sync.base,
        destination=destination,
        yaml_file=sync.yaml_file,
        memory_limit=current.memory_limit,
        on_rows=every_few_seconds(lambda rows: tell(f"{rows:,} profiles so far")),
        partition=partition,
    )
    newest = newest_update(
        manifest, sync.mapping, now=datetime.now(UTC), engine=partial(_engine, current, name=sync.name)
    )
    extraction = Extraction(manifest, time.monotonic() - began, newest)
    for text in extraction.told(sync.mapping.source.max_age):
        tell(text)
    return extraction


@contextmanager
def _engine(current: Environment, *, name: str) -> Iterator[Engine]:
    with current.store.temporary(name) as folder, Engine(folder, memory_limit=current.memory_limit) as engine:
        yield engine


_KINDS = {  # the icons that Dagster knows
    SourceKind.PARQUET: "parquet",
    SourceKind.WAREHOUSE: "sql",
    SourceKind.DELTA: "deltalake",
    SourceKind.ICEBERG: "iceberg",
}


def user_profiles(sync: Sync) -> dg.AssetsDefinition:
    key, max_age = sync.key("user_profiles"), sync.mapping.source.max_age
    out = sync.out(
        "user_profiles",
        "The source's profiles: which files, how many rows, how new.",
        kinds={_KINDS[sync.mapping.source.kind]},
        value=Manifest,
        # The check looks at the data whenever a run reads them; this, at how long no run has.
        freshness_policy=dg.FreshnessPolicy.time_window(fail_window=max_age.limit) if max_age else None,
    )

    @dg.multi_asset(
        outs={"user_profiles": out},
        check_specs=[checks.fresh_check_spec(key, max_age)] if max_age else [],
        name=f"{sync.name}__user_profiles",
        deps=[dg.AssetKey.from_user_string(upstream) for upstream in sync.mapping.depends_on],
    )
    def extract(
        context: dg.AssetExecutionContext, environment: EnvironmentResource
    ) -> Iterator[dg.MaterializeResult[Manifest]]:
        with told_plainly():
            current = environment.current()
            destination = current.store.profiles(sync.name, context.run.run_id)
            found = read_profiles(
                sync, current, destination=destination, tell=context.log.info, partition=partition_of(context.run)
            )
            fresh = checks.check_fresh(found.newest, max_age, key, let_pass=is_without_guards(context.run))
            yield dg.MaterializeResult(
                asset_key=key,
                value=found.manifest,
                metadata=metadata.of_profiles(found, sync.mapping) | metadata.of_target(current.target),
                check_results=fresh,
            )

    return extract
