"""Collects the evidence for the 28 tests from the stores of this installation.

A trace is made only of what is stored and says that the test held. A test whose result was bad,
or which nothing shows to have run, leaves none.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from statistics import median

from aios_platform.components.model_lifecycle.candidates import CANDIDATE
from aios_platform.components.model_lifecycle.faults import FAULTS
from aios_platform.components.model_lifecycle.measuring import PERFORMANCE
from aios_platform.components.model_lifecycle.names import Names
from aios_platform.components.model_lifecycle.references import reference_folder
from aios_platform.components.model_lifecycle.reproduction import REPRODUCTION
from aios_platform.components.model_lifecycle.served import DRIFT, SKEW, document
from aios_platform.components.model_lifecycle.tuning import SEARCH
from aios_platform.contracts.datasets import DatasetVersion
from aios_platform.contracts.decisions import Decision, RetrainAction, RetrainDecision
from aios_platform.contracts.models import NetworkCheck
from aios_platform.contracts.readiness import How, TestScore, Trace
from aios_platform.contracts.replays import Replay
from aios_platform.contracts.rollouts import Rollout, RolloutMode, RolloutState
from aios_platform.contracts.search import declared_value
from aios_platform.ledger.attestations import attestations
from aios_platform.ledger.entries import LedgerEntry
from aios_platform.ledger.health import RETRAIN_DECISION, ROLLBACK
from aios_platform.ledger.identity import SERVICES
from aios_platform.ledger.rollouts import ROLLOUT
from aios_platform.readiness.facts import Facts, of_row
from aios_platform.readiness.rubric import RUBRIC
from aios_platform.readiness.scoring import score
from aios_platform.resources.stores import Stores

LEARNS = ("learns", "reached")
SOUND = ("rows_alone", "bounded")
LEAST_SPEED = 0.5
"""Rows per second against the median of the versions before: less is a regression."""


def score_of(names: Names, stores: Stores, at: datetime | None = None) -> TestScore:
    """The ML Test Score of a model, from what this installation has stored.

    Args:
        names: The model.
        stores: Where everything is.
        at: The moment, aware; None: now.

    Raises:
        DatabaseUnavailable: The ledger cannot be read.
        ArtifactCorrupt: A stored document is not what was written.
    """
    facts = Facts(names, stores)
    traces = [
        *_data(facts),
        *_model(facts),
        *_infrastructure(facts),
        *_monitoring(facts),
        *_replayed(facts),
        *_attested(facts),
    ]
    return score(names.model, traces, at or datetime.now(UTC))


def _data(facts: Facts) -> Iterator[Trace]:
    yield from _validated(facts, "data_1")
    yield from _importance(facts)
    # Each value is made again from what was known at its time, and compared.
    yield from facts.passed("data_7", "leakage")


def _model(facts: Facts) -> Iterator[Trace]:
    yield from _tuned(facts)
    yield from _linear(facts)
    yield from facts.passed("model_6", "slice_")
    yield from facts.passed("model_7", "fairness_")


def _infrastructure(facts: Facts) -> Iterator[Trace]:
    for row in facts.rows(REPRODUCTION):
        version = row.payload["version"]
        live = facts.champion is not None and version == facts.champion.version
        if live and row.payload["reproduced"]:
            says = f"Version {version} was trained again: the same answers."
            yield of_row("infrastructure_1", _how(row), row, says)
    yield from _checked(facts, "infrastructure_2", LEARNS)
    if facts.verdict is not None:
        row, verdict = facts.verdict
        if verdict.decision is Decision.PROMOTE:
            says = f"The gate judged version {verdict.candidate_version}: {verdict.reasons[0]}"
            yield of_row("infrastructure_4", How.AUTOMATED, row, says)
    for row in facts.rows(ROLLOUT):
        rollout = Rollout.model_validate(row.payload["rollout"])
        if rollout.mode is RolloutMode.CANARY and rollout.state is RolloutState.PROMOTED:
            says = f"Version {rollout.version} answered a part of the traffic first."
            yield of_row("infrastructure_6", How.AUTOMATED, row, says)
    for row in facts.rows(ROLLBACK):
        yield of_row("infrastructure_7", _how(row), row, f"{row.principal} rolled back.")


def _how(row: LedgerEntry) -> How:
    return How.AUTOMATED if row.principal in SERVICES else How.MANUAL


def _tuned(facts: Facts) -> Iterator[Trace]:
    """The newest search, where the declaration has its best values."""
    training = facts.names.declaration.training
    for row in facts.rows(SEARCH)[:1]:
        best = row.payload["best"] or {}
        if best and all(declared_value(training, name) == best[name] for name in best):
            says = f"The declared values are the best of {row.payload['trials']} trials."
            yield of_row("model_3", How.MANUAL, row, says)


def _linear(facts: Facts) -> Iterator[Trace]:
    """The gate's comparison with a linear model, also where the policy only notes it."""
    if facts.verdict is not None:
        row, verdict = facts.verdict
        for rule in verdict.rules:
            if rule.rule == "beats_linear" and rule.low is not None and rule.low > 0:
                yield of_row("model_5", How.AUTOMATED, row, rule.reason)


def _checked(facts: Facts, test: str, names: tuple[str, ...]) -> Iterator[Trace]:
    """The checks of the champion's networks, as they were trained."""
    if facts.candidate is None:
        return
    checks = [NetworkCheck.model_validate(check) for check in facts.candidate.payload["checks"]]
    found = [check for check in checks if check.name in names]
    if len(found) == len(names) and all(check.held for check in found):
        yield of_row(test, How.AUTOMATED, facts.candidate, " ".join(c.says for c in found))


def _speed(facts: Facts) -> Iterator[Trace]:
    """Training against the versions before it, serving and size against the champion before."""
    judged = facts.passed("monitoring_6", "max_latency_ratio", "max_size_ratio")
    if facts.candidate is None or not judged:
        return
    own = float(facts.candidate.payload["rows_per_second"])
    earlier = [
        float(row.payload["rows_per_second"])
        for row in facts.rows(CANDIDATE)
        if row.seq < facts.candidate.seq and row.payload.get("rows_per_second")
    ]
    if earlier and own >= LEAST_SPEED * median(earlier):
        says = (
            f"Trained at {own:,.0f} rows a second, the {len(earlier)} before it at "
            f"{median(earlier):,.0f}; {judged[0].says}"
        )
        yield of_row("monitoring_6", How.AUTOMATED, facts.candidate, says)


def _monitoring(facts: Facts) -> Iterator[Trace]:
    yield from _watched(facts)
    yield from _skew(facts)
    yield from _performance(facts)
    for row in facts.rows(RETRAIN_DECISION)[:1]:
        decision = RetrainDecision.model_validate(row.payload["decision"])
        champion = facts.champion
        renewed = champion is not None and champion.promoted_at > row.recorded_at
        # A model that the decision calls too old is stale until another one is live.
        if decision.action is RetrainAction.HOLD or renewed:
            says = f"{decision.window}: {decision.action}, {decision.reason}"
            yield of_row("monitoring_4", How.AUTOMATED, row, says)
    yield from _checked(facts, "monitoring_5", SOUND)
    yield from _speed(facts)


def _replayed(facts: Facts) -> Iterator[Trace]:
    name = f"replays/{facts.names.model}/result.json"
    content = facts.stores.artifacts.read_named(name)
    if content is None:
        return
    found = Replay.model_validate_json(content)
    link = facts.stores.artifacts.uri_of(name)
    span = f"{found.first} to {found.last}"
    gain = found.against_never
    # Exactly 0: the live model was never another than the one that grew old.
    if gain is not None and gain.value != 0:
        says = f"Replay of {span}: against a model never trained again, {gain.value:+.4f}."
        yield Trace(test="model_4", how=How.MANUAL, link=link, says=says, at=found.finished_at)
    says = f"Replay of {span} through every stage, {found.runs} runs."
    yield Trace(test="infrastructure_3", how=How.MANUAL, link=link, says=says, at=found.finished_at)


def _validated(facts: Facts, test: str) -> Iterator[Trace]:
    # Validation that is not passed stores no report: the window is refused.
    newest = _newest(facts, f"{facts.names.model}/validation")
    if newest is not None:
        says = f"Window {newest.key} met the declared expectations of {newest.rows} tables."
        yield _of_dataset(test, newest, says)


def _importance(facts: Facts) -> Iterator[Trace]:
    from aios_platform.monitoring.importance import Importance

    champion = facts.champion
    if champion is None or facts.decision is None:
        return
    folder = reference_folder(facts.names.model, champion.training_set_digest)
    name = f"{folder}/importance-{champion.model_digest}.json"
    content = facts.stores.artifacts.read_named(name)
    if content is None:
        return
    found = Importance.model_validate_json(content)
    if all(rise > 2 * found.standard_error[each] for each, rise in found.increase.items()):
        yield Trace(
            test="data_2",
            how=How.AUTOMATED,
            link=facts.stores.artifacts.uri_of(name),
            says=f"Each of {len(found.increase)} features lowers the loss on {found.rows:,} rows.",
            at=facts.decision[0].recorded_at,
        )


def _watched(facts: Facts) -> Iterator[Trace]:
    from aios_platform.monitoring.drift import DriftReport, DriftStatus
    from aios_platform.monitoring.faults import FaultReport

    newest = _newest(facts, facts.names.predictions)
    if newest is None:
        return
    faults = facts.document(FAULTS, newest.key, FaultReport)
    if faults is not None and not faults.faults:
        says = f"Window {newest.key} was searched for faults of its sources: none."
        yield _of_dataset("monitoring_1", newest, says, facts, FAULTS)
    drift = facts.document(DRIFT, newest.key, DriftReport)
    if drift is not None and drift.status is not DriftStatus.NOT_ENOUGH_DATA:
        says = f"Window {newest.key} was held against the training rows: {drift.status}."
        yield _of_dataset("monitoring_2", newest, says, facts, DRIFT)


def _skew(facts: Facts) -> Iterator[Trace]:
    from aios_platform.components.model_lifecycle.documents import document_keys
    from aios_platform.monitoring.skew import SkewReport

    if facts.champion is None or facts.decision is None:
        return
    kind = document(SKEW, facts.champion.version)
    for key in document_keys(facts.names, facts.stores.artifacts, kind)[-1:]:
        found = facts.document(kind, key, SkewReport)
        scored = facts.stores.artifacts.current(facts.names.predictions, key)
        if found is not None and scored is not None and found.enough and not found.skewed:
            says = f"{found.rows:,} recorded requests of {key}: the features of the batch."
            yield _of_dataset("monitoring_3", scored, says, facts, kind)


def _performance(facts: Facts) -> Iterator[Trace]:
    from aios_platform.monitoring.performance import Performance, PerformanceStatus

    for row in facts.rows(RETRAIN_DECISION):
        decision = row.payload["decision"]
        found = facts.document(PERFORMANCE, decision["window"], Performance)
        if found is not None and found.status is PerformanceStatus.MEASURED:
            if not decision["degraded"]:
                says = f"{found.window}: {found.metric} {found.metrics[found.metric]:.4f}, healthy."
                yield of_row("monitoring_7", How.AUTOMATED, row, says)
            return


def _attested(facts: Facts) -> Iterator[Trace]:
    known = {test.name for test in RUBRIC}
    for found in attestations(facts.stores.database, facts.names.model):
        if found.test in known:
            yield Trace(
                test=found.test,
                how=How.MANUAL,
                link=f"ledger row {found.ledger_row}, {found.evidence}",
                says=f"{found.principal}: {found.note}",
                at=found.recorded_at,
                expires_at=found.expires_at,
            )


def _newest(facts: Facts, dataset: str) -> DatasetVersion | None:
    keys = facts.stores.artifacts.keys(dataset)
    return facts.stores.artifacts.current(dataset, max(keys)) if keys else None


def _of_dataset(
    test: str, version: DatasetVersion, says: str, facts: Facts | None = None, kind: str = ""
) -> Trace:
    link = version.uri
    if facts is not None:
        name = f"observations/{facts.names.model}/{kind}/{version.key}.json"
        link = facts.stores.artifacts.uri_of(name)
    return Trace(test=test, how=How.AUTOMATED, link=link, says=says, at=version.created_at)
