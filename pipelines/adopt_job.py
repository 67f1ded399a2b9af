"""Adoption and verification as jobs of one op each, beside the sync's assets. They take the app as a push does.

What they do stands in adopt.py and verify.py.
"""

import dagster as dg

from pipelines import metadata
from pipelines.adopt import Adopted, adopt, assumption_text, require_nothing_acknowledged
from pipelines.assets import Sync, every_few_seconds, push_of, told_plainly
from pipelines.engine import Engine
from pipelines.errors import ConfigurationError
from pipelines.frame_sets import compute_frame_set, declared_attributes, opened_engine
from pipelines.resources import EnvironmentResource, push_pool
from pipelines.runs import partition_of
from pipelines.user_profiles import read_profiles
from pipelines.verify import Verified, verify

_TAGS = {"dagster/retry_on_asset_or_op_failure": "false"}


class AdoptConfig(dg.Config):
    """`confirm` is the sync's name, typed by whoever knows what is assumed."""

    confirm: str = ""
    again: bool = False


class VerifyConfig(dg.Config):
    """`everyone`: all acknowledged accounts instead of a sample."""

    everyone: bool = False


def adopt_job(sync: Sync) -> dg.JobDefinition:
    @dg.op(name=f"{sync.name}__adopt", pool=push_pool())
    def take(context: dg.OpExecutionContext, environment: EnvironmentResource, config: AdoptConfig) -> Adopted:
        with told_plainly():
            current = environment.current()
            push = push_of(sync, current, context)
            if config.confirm != sync.name:
                raise ConfigurationError(
                    f"{assumption_text(sync.name, current.target.title)} If that is right, put `confirm: {sync.name}` "
                    f"into the config of {sync.name}__adopt"
                )
            destination = current.store.profiles(sync.name, push.run_id)
            extraction = read_profiles(
                sync, current, destination=destination, tell=context.log.info, partition=partition_of(context.run)
            )
            declared = declared_attributes(push, yaml_file=sync.yaml_file)
            with push.locked(), opened_engine(push) as engine:
                push.fold_leftovers(engine)
                if not config.again:
                    require_nothing_acknowledged(push)
                folder = current.store.frames(sync.name, push.run_id)
                adopted = adopt(
                    push, engine, compute_frame_set(engine, push, extraction.manifest, declared=declared, folder=folder)
                )
            push.publish_emulator()
            facts = {f"{kind}_adopted": count for kind, count in adopted.accounts.items()}
            about = metadata.of_target(current.target) | {"adopted": True, **facts}
            context.log_event(
                dg.AssetMaterialization(
                    sync.key("acknowledged_attributes"), description="Adopted: nothing was sent.", metadata=about
                )
            )
            return adopted

    @dg.job(
        name=f"{sync.name}_adopt",
        description=f"Takes the profiles of {sync.name} as acknowledged without sending anything; to be confirmed.",
        tags=_TAGS,
    )
    def job() -> None:
        take()

    return job


def verify_job(sync: Sync) -> dg.JobDefinition:
    @dg.op(name=f"{sync.name}__verify", pool=push_pool())
    def read(context: dg.OpExecutionContext, environment: EnvironmentResource, config: VerifyConfig) -> Verified:
        with told_plainly():
            current = environment.current()
            push = push_of(sync, current, context)
            tell = every_few_seconds(lambda accounts: context.log.info(f"{accounts:,} accounts read back"))
            push.require_emulator()
            with (
                push.locked(),
                current.store.temporary(push.run_id) as folder,
                Engine(folder, memory_limit=current.memory_limit) as engine,
                current.target.open(current.store.emulator_file(sync.name), sync.mapping.declared()) as client,
            ):
                push.fold_leftovers(engine)
                verified = verify(push, client, engine, folder=folder, everyone=config.everyone, on_read=tell)
            context.add_output_metadata(
                metadata.of_target(current.target)
                | {
                    "acknowledged": verified.acknowledged,
                    "read": verified.read,
                    "matching": verified.matching,
                    "differing_share_bound": round(verified.differing_share_bound, 6),
                    "differences": dg.MetadataValue.path(verified.differences_address),
                }
            )
            return verified

    @dg.job(
        name=f"{sync.name}_verify",
        description=f"Reads back what {sync.name} takes for acknowledged: a sample, or all with `everyone: true`.",
        tags=_TAGS,
    )
    def job() -> None:
        read()

    return job
