"""Assets `verdict` and `champion`: the gate, and the swap."""

import base64
from collections.abc import Iterator
from typing import Any

import dagster as dg

from aios_platform.components.model_lifecycle.alias import AliasReport, reconcile
from aios_platform.components.model_lifecycle.carrying_out import (
    CarriedOut,
    Status,
    carry_out,
    complete,
)
from aios_platform.components.model_lifecycle.handoff import Candidate, Judged, hand_on, take
from aios_platform.components.model_lifecycle.judging import Judgement, judge, recorded_exam
from aios_platform.components.model_lifecycle.names import CAUSE_TAG, REQUEST_TAG, Names
from aios_platform.components.model_lifecycle.packaging import sets_line, tiers_table
from aios_platform.components.model_lifecycle.principals import acting_for
from aios_platform.components.model_lifecycle.spans import clock_of, past_clock
from aios_platform.contracts.decisions import Champion, Decision, Outcome, Verdict
from aios_platform.contracts.packages import ServingPackage
from aios_platform.errors import AiosError
from aios_platform.resources.stores import Artifacts, Stores
from aios_platform.telemetry import stage

MANUAL = "launched by hand"
ALIAS_IN_STEP = "alias_in_step"


def promotion_assets(names: Names) -> list[dg.AssetsDefinition]:
    """`verdict` judges the run's candidate; `champion` is skipped unless it is promoted."""
    declaration = names.declaration

    @dg.asset(
        key=names.asset("verdict"),
        group_name=names.model,
        deps=[names.asset("candidate")],
        kinds={"python"},
        owners=[declaration.owner],
        check_specs=[
            dg.AssetCheckSpec(
                "promoted",
                asset=names.asset("verdict"),
                description="The gate let the candidate pass; a refusal is not a failed run.",
            )
        ],
        description="Candidate and champion, scored again on identical rows, and what follows.",
    )
    def verdict(context: dg.AssetExecutionContext, artifacts: Artifacts) -> dg.MaterializeResult:  # type: ignore[type-arg]
        stores = Stores(artifacts.open())
        candidate = take(stores.artifacts, context, "candidate", Candidate)
        with stage(names.model, "verdict", f"version {candidate.version}") as made:
            with acting_for(context.run):
                judgement = judge(
                    names,
                    candidate,
                    recorded_exam(candidate),
                    stores,
                    cause=context.run.tags.get(CAUSE_TAG, MANUAL),
                    key=context.run.run_id,
                    as_of=past_clock(context),
                )
            judged = judgement.judged.verdict
            made.append(f"{judged.decision}: {judged.reasons[0]}")
        hand_on(stores.artifacts, context, "verdict", judgement.judged)
        return dg.MaterializeResult(
            metadata=_metadata(judgement, stores),
            check_results=[_promoted(judged)],
        )

    @dg.asset(
        key=names.asset("champion"),
        group_name=names.model,
        deps=[names.asset("verdict")],
        output_required=False,
        kinds={"postgres", "mlflow"},
        owners=[declaration.owner],
        check_specs=[
            dg.AssetCheckSpec(
                ALIAS_IN_STEP,
                asset=names.asset("champion"),
                description="MLflow's alias 'champion' points where the ledger says; a sensor "
                "looks every minute, puts it back, and fails this check once.",
            )
        ],
        description="The live version: swapped in one transaction, skipped when refused or "
        "while it waits for an approval.",
    )
    def champion(context: dg.AssetExecutionContext, artifacts: Artifacts) -> Iterator[Any]:
        stores = Stores(artifacts.open())
        request = context.run.tags.get(REQUEST_TAG)
        with acting_for(context.run):
            if request is not None:
                what = f"request {request}"
                carried = _swap(names, what, lambda: complete(names, int(request), stores))
            else:
                judged = take(stores.artifacts, context, "verdict", Judged)
                what = f"version {judged.candidate.version}"
                clock = clock_of(context)
                carried = _swap(names, what, lambda: carry_out(names, judged, stores, as_of=clock))
            alias = alias_check(names, _alias(names, stores))
        if carried.champion is not None:
            yield dg.MaterializeResult(metadata=_live(carried.champion) | _packed(carried.package))
        else:
            context.log.info(carried.message)
            yield dg.AssetObservation(
                names.asset("champion"),
                metadata={
                    "status": str(carried.status),
                    "how_to_go_on": carried.message,
                    **({"request": carried.request.ledger_row} if carried.request else {}),
                },
            )
        yield alias

    return [verdict, champion]


def alias_check(names: Names, report: AliasReport | AiosError) -> dg.AssetCheckResult:
    """What the check `alias_in_step` says in a run."""
    if isinstance(report, AiosError):
        return _check(names, passed=False, metadata={"message": str(report)})
    return _check(names, passed=not report.alarming, metadata=_alias_metadata(report))


def alias_evaluation(names: Names, report: AliasReport) -> dg.AssetCheckEvaluation:
    """What the check `alias_in_step` says outside of any run."""
    return dg.AssetCheckEvaluation(
        asset_key=names.asset("champion"),
        check_name=ALIAS_IN_STEP,
        passed=not report.alarming,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            key: dg.MetadataValue.text(text) for key, text in _alias_metadata(report).items()
        },
    )


def _check(names: Names, *, passed: bool, metadata: dict[str, str]) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=passed,
        asset_key=names.asset("champion"),
        check_name=ALIAS_IN_STEP,
        severity=dg.AssetCheckSeverity.WARN,
        metadata=metadata,
    )


def _alias_metadata(report: AliasReport) -> dict[str, str]:
    return {
        "state": str(report.state),
        "message": report.message,
        "champion": report.champion or "none",
        "found": report.found or "none",
    }


def _alias(names: Names, stores: Stores) -> AliasReport | AiosError:
    try:
        return reconcile(names.model, stores.database, stores.registry)
    except AiosError as error:
        return error


def _swap(names: Names, what: str, act: Any) -> CarriedOut:
    with stage(names.model, "champion", what) as made:
        carried: CarriedOut = act()
        made.append(
            carried.message if carried.status is Status.PROMOTED else f"{carried.status}: stays"
        )
    return carried


def _live(live: Champion) -> dict[str, Any]:
    return {
        "summary": f"version {live.version} is live",
        "version": live.version,
        "revision": live.revision,
        "model_digest": live.model_digest,
        "trained_through": live.trained_through,
        "mlflow_run": live.run_id,
        **live.baseline,
    }


def _packed(package: ServingPackage | None) -> dict[str, Any]:
    """What the version brings along to be served."""
    if package is None:
        return {}
    found: dict[str, Any] = {"tiers": dg.MetadataValue.md(tiers_table(package))}
    if package.conformal is not None:
        found["prediction_sets"] = sets_line(package.conformal)
    return found


def _metadata(judgement: Judgement, stores: Stores) -> dict[str, Any]:
    judged, candidate = judgement.judged.verdict, judgement.judged.candidate
    documents = {
        f"{name}_file": dg.MetadataValue.path(stores.artifacts.blob_uri(digest, suffix))
        for name, (digest, suffix) in judgement.documents.items()
    }
    return {
        "summary": f"version {candidate.version}: {judged.decision}",
        "decision": str(judged.decision),
        "reasons": "; ".join(judged.reasons),
        "verdict": dg.MetadataValue.md(_page(judged)),
        "model_card": dg.MetadataValue.md(judgement.card),
        "exam_windows": ", ".join(judged.exam_windows),
        "exam_digest": judged.exam_digest,
        "evidence_digest": judged.evidence_digest,
        "ledger_row": judgement.judged.ledger_row,
        **documents,
        **{f"candidate_{k}": v for k, v in judged.candidate_metrics.items()},
        **{f"champion_{k}": v for k, v in judged.champion_metrics.items()},
    }


def _promoted(judged: Verdict) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=judged.decision is Decision.PROMOTE,
        check_name="promoted",
        # A refused candidate is the gate at work, not a failure of the run.
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            _rule_name(rule.rule, rule.metric, rule.slice): f"{rule.outcome}: {rule.reason}"
            for rule in judged.rules
            if rule.outcome is not Outcome.PASS
        },
    )


def _rule_name(rule: str, metric: str, part: str) -> str:
    return " ".join(text for text in (rule, metric, part) if text)


def _page(judged: Verdict) -> str:
    """The verdict as Markdown, with its plot inside."""
    from aios_platform.promotion.report import verdict_markdown, verdict_plot

    plot = verdict_plot(judged)
    if plot is None:
        return verdict_markdown(judged)
    image = base64.b64encode(plot).decode()
    return f"![paired difference](data:image/png;base64,{image})\n\n{verdict_markdown(judged)}"
