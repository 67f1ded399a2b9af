"""The dry run as an asset with a job of its own: everything up to the frames and their checks, and nothing is sent.

It hands nothing on: frames that a plan made are never pushed.
"""

from collections.abc import Iterator
from datetime import datetime

import dagster as dg

from pipelines import checks, metadata
from pipelines.assets import Sync, push_of, read_profiles, told_plainly
from pipelines.engine import Engine
from pipelines.frame_sets import declared_attributes
from pipelines.plan import Plan, make_plan, take_over_leftovers
from pipelines.push import Push
from pipelines.resources import EnvironmentResource, push_pool
from pipelines.sharing import busy_text


def plan_asset(sync: Sync) -> dg.AssetsDefinition:
    key = sync.key("plan")
    description = "The dry run: what a run would send now, how long it would take, and what would stop it."

    @dg.multi_asset(
        outs={"plan": sync.out("plan", description, kinds={"duckdb"}, value=Plan)},
        check_specs=[
            spec
            for kind in sync.mapping.account_types()
            for spec in checks.frame_check_specs(key, prefix=f"{kind}_", stopping_guards=False)
        ],
        name=f"{sync.name}__plan",
    )
    def compute(
        context: dg.AssetExecutionContext, environment: EnvironmentResource
    ) -> Iterator[dg.MaterializeResult[Plan]]:
        with told_plainly():
            current = environment.current()
            push = push_of(sync, current, context, patience=0.0)
            began_at = datetime.now(push.run_started_at.tzinfo)
            busy = busy_text(context.instance, push_pool(), own_run_id=context.run.run_id)
            current.store.prune_plans(sync.name)
            with current.store.temporary(push.run_id) as folder:
                # What a warehouse answered is not kept: no push reads it.
                manifest = read_profiles(sync, current, destination=folder / "profiles", tell=context.log.info)
                declared = declared_attributes(push, yaml_file=sync.yaml_file)
                with Engine(folder, memory_limit=current.memory_limit) as engine:
                    notes = take_over_leftovers(push, engine, busy=busy)
                    plan = make_plan(engine, push, manifest, declared=declared, notes=notes, began_at=began_at)
            facts = {**plan.facts(), "sample": dg.MetadataValue.json(list(plan.sample))}
            if notes:
                facts["notes"] = " ".join(notes)
            yield dg.MaterializeResult(
                asset_key=key,
                value=plan,
                metadata=facts | metadata.of_target(current.target),
                check_results=list(_check_results(plan, push, key)),
            )

    return compute


def _check_results(plan: Plan, push: Push, key: dg.AssetKey) -> Iterator[dg.AssetCheckResult]:
    for each in plan.plans:
        prefix = f"{each.frame.account_type}_"
        yield from checks.check_frame(each.frame, key, prefix=prefix)
        yield checks.check_guards(plan.frames, each.frame, key, push=push, prefix=prefix, stopping=False)
