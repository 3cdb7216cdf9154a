"""The jobs of a model, and the partitions they run on."""

from datetime import datetime

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import (
    UnresolvedAssetJobDefinition,
)

from aios_platform.components.model_lifecycle.liveness import living_executor
from aios_platform.components.model_lifecycle.names import (
    AS_OF_TAG,
    CAUSE_KEY_TAG,
    CAUSE_TAG,
    EXCLUSIVE_TAG,
    MODEL_TAG,
    REQUEST_TAG,
    VERSION_TAG,
    Names,
)
from aios_platform.components.model_lifecycle.plan import Job, NextRun
from aios_platform.contracts.windows import Every, WindowSchedule

CRON = {
    Every.HOUR: "0 * * * *",
    Every.DAY: "0 0 * * *",
    Every.WEEK: "0 0 * * {weekday}",
    Every.MONTH: "0 0 1 * *",
}
SCORE_ASSETS = (
    "raw",
    "features",
    "online_features",
    "predictions",
    "performance",
    "drift",
    "retrain_decision",
)
MEASURE_ASSETS = ("raw", "features", "online_features", "performance", "retrain_decision")
BACKFILL_ASSETS = ("predictions", "performance", "drift")
BACKFILL = "backfill"
RETRAIN_ASSETS = ("training_set", "candidate", "verdict", "champion")
PARTITION_TAG = "dagster/partition"
RANGE_START_TAG = "dagster/asset_partition_range_start"
RANGE_END_TAG = "dagster/asset_partition_range_end"
# A run that outlives this is taken for dead; run monitoring then ends it.
MAX_RUNTIME_SECONDS = 2 * 3600


def partitions_of(schedule: WindowSchedule) -> dg.TimeWindowPartitionsDefinition:
    """Dagster's partitions for a declared schedule of windows, with the same keys."""
    weekday = schedule.start.isoweekday() % 7
    return dg.TimeWindowPartitionsDefinition(
        start=schedule.start.strftime(schedule.key_format),
        end=schedule.end.strftime(schedule.key_format) if schedule.end else None,
        fmt=schedule.key_format,
        timezone=schedule.timezone,
        cron_schedule=CRON[schedule.every].format(weekday=weekday),
    )


def run_tags(names: Names, run: NextRun, as_of: datetime | None = None) -> dict[str, str]:
    """Tags of a run that the plan asks for; they say why it runs and over which windows."""
    tags = {
        MODEL_TAG: names.model,
        EXCLUSIVE_TAG: names.model,
        CAUSE_TAG: run.cause,
        CAUSE_KEY_TAG: run.key(names.model),
        "dagster/max_runtime": str(MAX_RUNTIME_SECONDS),
    }
    if run.request is not None:
        tags[REQUEST_TAG] = str(run.request)
    if as_of is not None:
        tags[AS_OF_TAG] = as_of.isoformat()
    if run.first is not None and run.last is not None:
        tags |= range_tags(run.first, run.last)
    return tags


def range_tags(first: str, last: str) -> dict[str, str]:
    """Tags of a run over one window, or over a contiguous range of them."""
    if first == last:
        return {PARTITION_TAG: first}
    return {RANGE_START_TAG: first, RANGE_END_TAG: last}


def jobs_of(names: Names) -> list[UnresolvedAssetJobDefinition]:
    """The jobs of the plan: score, measure, retrain, promote; and `<model>__backfill`.

    Several jobs, because whatever lies downstream of a skipped asset is skipped in the same run: a
    refused candidate must not stop the scoring of new windows.
    """
    return [
        dg.define_asset_job(
            names.job(Job.SCORE),
            selection=dg.AssetSelection.assets(*(names.asset(a) for a in SCORE_ASSETS)),
            description="Ingest, validate and score windows with the live champion; watch them.",
            executor_def=living_executor,
            tags={MODEL_TAG: names.model, EXCLUSIVE_TAG: names.model},
        ),
        dg.define_asset_job(
            names.job(Job.MEASURE),
            selection=dg.AssetSelection.assets(*(names.asset(a) for a in MEASURE_ASSETS)),
            description="Read windows again whose labels have come, measure their predictions, "
            "decide whether to retrain.",
            executor_def=living_executor,
            tags={MODEL_TAG: names.model, EXCLUSIVE_TAG: names.model},
        ),
        dg.define_asset_job(
            names.job(Job.RETRAIN),
            selection=dg.AssetSelection.assets(*(names.asset(a) for a in RETRAIN_ASSETS)),
            description="Train a candidate, compare it with the champion, promote or refuse it.",
            executor_def=living_executor,
            tags={MODEL_TAG: names.model, EXCLUSIVE_TAG: names.model},
        ),
        dg.define_asset_job(
            names.job(Job.PROMOTE),
            selection=dg.AssetSelection.assets(names.asset("champion")),
            description="Make an approved candidate champion; the approvals' sensor launches it.",
            executor_def=living_executor,
            tags={MODEL_TAG: names.model, EXCLUSIVE_TAG: names.model},
        ),
        dg.define_asset_job(
            names.job(BACKFILL),
            selection=dg.AssetSelection.assets(*(names.asset(a) for a in BACKFILL_ASSETS)),
            description="Score past windows again with the version that was live when they ended, "
            f"or with the one that the tag {VERSION_TAG} names. Nothing is overwritten.",
            executor_def=living_executor,
            tags={MODEL_TAG: names.model, EXCLUSIVE_TAG: names.model},
        ),
    ]
