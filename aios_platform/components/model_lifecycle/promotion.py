"""Assets `verdict` and `champion`: the gate, and the swap."""

import base64
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import dagster as dg

from aios_platform.components.model_lifecycle.handoff import (
    Candidate,
    Judged,
    hand_on,
    take,
)
from aios_platform.components.model_lifecycle.names import CAUSE_TAG, Names
from aios_platform.components.model_lifecycle.state import VERDICT
from aios_platform.contracts.decisions import Champion, Decision, Outcome, Verdict
from aios_platform.errors import AiosError
from aios_platform.resources.stores import Artifacts, Ledger, Registry
from aios_platform.telemetry import stage

if TYPE_CHECKING:
    import pyarrow as pa

    from aios_platform.promotion.exam import Contender

MANUAL = "launched by hand"


def promotion_assets(names: Names) -> list[dg.AssetsDefinition]:
    """`verdict` judges the run's candidate; `champion` is skipped unless it says promote."""
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
    def verdict(
        context: dg.AssetExecutionContext, artifacts: Artifacts, ledger: Ledger, registry: Registry
    ) -> dg.MaterializeResult:  # type: ignore[type-arg]
        from aios_platform.contracts.evidence import Evidence
        from aios_platform.ledger.champions import champion_of
        from aios_platform.ledger.entries import append
        from aios_platform.promotion.exam import Exam, labelled
        from aios_platform.promotion.gate import examine

        store, database = artifacts.open(), ledger.open()
        candidate = take(store, context, "candidate", Candidate)
        champion = champion_of(database, names.model)
        cause = context.run.tags.get(CAUSE_TAG, MANUAL)
        with stage(names.model, "verdict", f"version {candidate.version}") as made:
            frame = labelled(_exam_frame(store, candidate), declaration.label.column)
            judged = examine(
                model=names.model,
                gate=declaration.gate,
                exam=Exam.from_frame(
                    frame, row_id=declaration.source.row_id, label=declaration.label.column
                ),
                candidate=_contender(names, store, frame, candidate),
                champion=_contender(names, store, frame, champion) if champion else None,
                evidence=Evidence(leakage_cells=candidate.training_set.cells_replayed),
                drift_psi=declaration.monitoring.drift_psi,
            )
            made.append(f"{judged.decision}: {judged.reasons[0]}")
        with database.begin() as connection:
            row = append(
                connection,
                kind=VERDICT,
                subject=names.model,
                payload={"cause": cause, "verdict": judged.model_dump(mode="json")},
                key=f"verdict:{context.run.run_id}",
            )
        registry.open().set_verdict(names.model, candidate.version, judged)
        hand_on(store, context, "verdict", Judged(verdict=judged, candidate=candidate))
        passed = judged.decision is Decision.PROMOTE
        return dg.MaterializeResult(
            metadata={
                "summary": f"version {candidate.version}: {judged.decision}",
                "decision": str(judged.decision),
                "reasons": "; ".join(judged.reasons),
                "verdict": dg.MetadataValue.md(_page(judged)),
                "exam_windows": ", ".join(judged.exam_windows),
                "exam_digest": judged.exam_digest,
                "ledger_row": row,
                **{f"candidate_{k}": v for k, v in judged.candidate_metrics.items()},
                **{f"champion_{k}": v for k, v in judged.champion_metrics.items()},
            },
            check_results=[
                dg.AssetCheckResult(
                    passed=passed,
                    check_name="promoted",
                    # A refused candidate is the gate at work, not a failure of the run.
                    severity=dg.AssetCheckSeverity.WARN,
                    metadata={
                        rule.rule: f"{rule.outcome}: {rule.reason}"
                        for rule in judged.rules
                        if rule.outcome is not Outcome.PASS
                    },
                )
            ],
        )

    @dg.asset(
        key=names.asset("champion"),
        group_name=names.model,
        deps=[names.asset("verdict")],
        output_required=False,
        kinds={"postgres", "mlflow"},
        owners=[declaration.owner],
        description="The live version: swapped in one transaction, skipped when refused.",
    )
    def champion(
        context: dg.AssetExecutionContext, artifacts: Artifacts, ledger: Ledger, registry: Registry
    ) -> Iterator[Any]:
        from aios_platform.ledger.champions import promote

        store, database = artifacts.open(), ledger.open()
        judged = take(store, context, "verdict", Judged)
        candidate = judged.candidate
        if judged.verdict.decision is not Decision.PROMOTE:
            context.log.info("Refused: the champion stays.")
            return
        with stage(names.model, "champion", f"version {candidate.version}") as made:
            live = promote(
                database,
                judged.verdict,
                model_digest=candidate.model_digest,
                run_id=candidate.run_id,
                training_set_digest=candidate.training_set_digest,
                trained_through=candidate.trained_through,
            )
            registry.open().set_champion_alias(names.model, live.version)
            made.append(f"version {live.version} is live")
        yield dg.MaterializeResult(
            metadata={
                "summary": f"version {live.version} is live",
                "version": live.version,
                "revision": live.revision,
                "model_digest": live.model_digest,
                "trained_through": live.trained_through,
                "mlflow_run": live.run_id,
                **live.baseline,
            }
        )

    return [verdict, champion]


def _page(judged: Verdict) -> str:
    """The verdict as Markdown, with its plot inside."""
    from aios_platform.promotion.report import verdict_markdown, verdict_plot

    plot = verdict_plot(judged)
    if plot is None:
        return verdict_markdown(judged)
    image = base64.b64encode(plot).decode()
    return f"![paired difference](data:image/png;base64,{image})\n\n{verdict_markdown(judged)}"


def _exam_frame(store: Any, candidate: Candidate) -> "pa.Table":
    import pyarrow as pa

    return pa.concat_tables([store.read(version) for version in candidate.training_set.exam])


def _contender(
    names: Names, store: Any, frame: "pa.Table", version: Candidate | Champion
) -> "Contender":
    """Score one version on the exam; what goes wrong is a finding for the gate, not a crash."""
    from aios_platform.inference.session import Session
    from aios_platform.promotion.exam import Contender

    try:
        session = Session(store.get(version.model_digest, ".onnx"), digest=version.model_digest)
        return Contender(
            version=version.version,
            row_ids=frame[names.declaration.source.row_id].to_numpy(),
            scores=session.predict(frame),
            trained_through=version.trained_through,
            digest=version.model_digest,
        )
    except AiosError as error:
        return Contender.unscorable(
            version.version, version.trained_through, str(error), digest=version.model_digest
        )
