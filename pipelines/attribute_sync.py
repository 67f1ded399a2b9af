"""The component: one YAML file -> assets, checks, a job and a schedule. It reads nothing but the YAML at load."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import BaseModel

from pipelines import assets
from pipelines.adopt_job import adopt_job, verify_job
from pipelines.assets import Sync
from pipelines.mapping import SyncMapping, mapping_from
from pipelines.plan_job import plan_asset
from pipelines.resources import PROJECT_FOLDER, filled_in, push_pool, unset_variables
from pipelines.runs import active_run
from pipelines.sharing import put_limit_in_force
from pipelines.triggers import misfits, triggers
from pipelines.user_profiles import user_profiles
from pipelines.yaml_lines import duplicate_keys

JOB_SUFFIXES = ("_plan", "_adopt", "_verify")  # beside the job named like the sync itself


class AttributeSync(dg.Component):
    """Keeps Tencent Push attributes in step with one source; declared in `pipelines/defs/<sync>/defs.yaml`."""

    def __init__(self, sync: Sync) -> None:
        self.sync = sync

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        return SyncMapping

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> "AttributeSync":
        """The sync is named like its folder. `{{ env.NAME }}` is replaced here, before anything is checked twice."""
        if not isinstance(attributes, SyncMapping):
            raise dg.DagsterInvalidDefinitionError(f"{context.path}: `attributes:` is missing")
        folder = Path(context.path)
        file = folder / "defs.yaml"
        problems = [*_name_problems(folder.name, file), *duplicate_keys(file)]
        if problems:
            raise dg.DagsterInvalidDefinitionError("\n".join(problems))
        written = attributes.model_dump(mode="json")
        resolved = _keeping_unset(context.resolution_context.resolve_value(written), written)
        mapping = mapping_from(resolved)
        problems = misfits(mapping, folder.name, yaml_file=file)
        if problems:
            raise dg.DagsterInvalidDefinitionError("\n".join(problems))
        return cls(Sync(folder.name, mapping, file, PROJECT_FOLDER))

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:  # noqa: ARG002  Dagster's signature
        return build_definitions(self.sync)


def _name_problems(name: str, file: Path) -> Iterator[str]:
    if not re.fullmatch(r"[A-Za-z0-9_]+", name):
        yield f"{file}: a sync is named like its folder, in letters, digits and underscores; {name!r} is not"
    if name.endswith(JOB_SUFFIXES):
        yield f"{file}: a sync's name does not end in {', '.join(JOB_SUFFIXES)}, which name other jobs of a sync"


def _keeping_unset(resolved: Any, written: Any) -> Any:
    """`resolved`, but for texts that name a variable which is not set: they stay, and are told when the sync runs.

    Unless a file has its value, as a secret of Docker or Kubernetes does.

    One machine loads the syncs of all teams; a variable that one of them lacks must not stop the others. In the middle
    of a text Dagster would write None for it.
    """
    if isinstance(written, dict):
        return {key: _keeping_unset(resolved[key], value) for key, value in written.items()}
    if isinstance(written, list):
        return [_keeping_unset(*pair) for pair in zip(resolved, written, strict=True)]
    return filled_in(written) if isinstance(written, str) and unset_variables(written) else resolved


def build_definitions(sync: Sync) -> dg.Definitions:
    """Everything of one sync but the shared resources (definitions.py)."""
    plan = dg.AssetSelection.assets(sync.key("plan"))
    job = dg.define_asset_job(
        sync.name,
        selection=dg.AssetSelection.key_prefixes([sync.name]) - plan,
        description=f"Extract, validate, push what changed, write down what failed: {sync.name}.",
        # Only a crash is worth another try of the whole run; what the push could not send is in the failed rows.
        tags={"dagster/retry_on_asset_or_op_failure": "false"},
    )
    plan_job = dg.define_asset_job(
        f"{sync.name}_plan",
        selection=plan,
        description=f"The dry run of {sync.name}: everything up to the frames and their checks; nothing is sent.",
        tags={"dagster/retry_on_asset_or_op_failure": "false"},
    )
    return dg.Definitions(
        assets=[
            user_profiles(sync),
            assets.attribute_frames(sync),
            assets.pushed_attributes(sync),
            plan_asset(sync),
        ],
        asset_checks=[assets.read_back_check(sync)],
        jobs=[job, plan_job, adopt_job(sync), verify_job(sync)],
        schedules=_schedules(sync),
        sensors=triggers(sync),
    )


def _schedules(sync: Sync) -> list[dg.ScheduleDefinition]:
    schedule = sync.mapping.schedule
    return [_schedule(sync, schedule.cron, schedule.timezone)] if schedule and schedule.cron else []


def _schedule(sync: Sync, cron: str, timezone: str) -> dg.ScheduleDefinition:

    @dg.schedule(
        job_name=sync.name,
        name=f"{sync.name}_schedule",
        cron_schedule=cron,
        execution_timezone=timezone,
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description=f"Runs {sync.name}; off until it is switched on here. Skips while a run is active.",
    )
    def nightly(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        put_limit_in_force(context.instance, push_pool())
        active = active_run(context.instance, sync.name)
        if active:
            return dg.SkipReason(f"run {active} of {sync.name} is still active")
        return dg.RunRequest()

    return nightly
