"""Rules on what a version costs to run, and on whether production will see what the exam saw."""

import math
from collections.abc import Iterator

from pydantic import BaseModel, ValidationError

from aios_platform.contracts.decisions import Outcome, RuleResult
from aios_platform.contracts.evidence import Evidence, OnlineParity, Operation
from aios_platform.contracts.policy import Gate

MAX_ONNX_DIFFERENCE = 1e-5
"""Largest |ONNX - torch| of a probability; float32 arithmetic in another order gives about 1e-6."""
MIB = 1024 * 1024
_RECORDS = {"candidate": Operation, "champion": Operation, "online_parity": OnlineParity}


def readable(evidence: Evidence) -> tuple[Evidence, frozenset[str]]:
    """The evidence without what cannot be read, and the names of what is there.

    Each piece is validated again by itself: a record made without validation may hold anything.
    """
    found: dict[str, object] = {}
    for name in Evidence.model_fields:
        value = getattr(evidence, name, None)
        if isinstance(value, BaseModel) and type(value) is _RECORDS.get(name):
            value = dict(value.__dict__)
        if value is None or isinstance(value, BaseModel):
            continue
        try:
            found[name] = getattr(Evidence.model_validate({name: value}), name)
        except (ValidationError, TypeError, ValueError):
            continue
    return Evidence.model_validate(found), frozenset(found)


def cost(gate: Gate, evidence: Evidence, *, with_champion: bool) -> Iterator[RuleResult]:
    """Latency and size, absolute and (where there is a champion) against the champion's."""
    own = evidence.candidate
    other = evidence.champion
    yield from _compared(
        "latency",
        "p95 latency of one row",
        "ms",
        (own.latency_p95_ms if own else None, gate.max_latency_ms),
        (other.latency_p95_ms if other else None, gate.max_latency_ratio),
        with_champion=with_champion,
    )
    yield from _compared(
        "size",
        "artifact",
        "MiB",
        (own.size_bytes / MIB if own else None, gate.max_size_mib),
        (other.size_bytes / MIB if other else None, gate.max_size_ratio),
        with_champion=with_champion,
    )


def _compared(
    name: str,
    what: str,
    unit: str,
    own: tuple[float | None, float],
    other: tuple[float | None, float],
    *,
    with_champion: bool,
) -> Iterator[RuleResult]:
    value, most = own
    reference, most_times = other
    yield _bounded(
        f"max_{name}_{unit.lower()}",
        value,
        most,
        f"The candidate's {what} is {{value:.4g}} {unit}",
        f"The candidate's {what} was not measured.",
    )
    if with_champion:
        yield _bounded(
            f"max_{name}_ratio",
            value / reference if value and reference else None,
            most_times,
            f"The candidate's {what} is {{value:.3g}} times the champion's",
            f"The {what} of candidate and champion were not both measured.",
        )


def fidelity(gate: Gate, evidence: Evidence, *, drift_psi: float) -> Iterator[RuleResult]:
    """Servability, parity of the online store, and drift of the exam against training."""
    yield _bounded(
        "servable",
        evidence.onnx_parity,
        MAX_ONNX_DIFFERENCE,
        "The ONNX artifact differs from the trained network by up to {value:.2g}",
        "The ONNX artifact was not held against the trained network.",
    )
    yield _online(evidence)
    yield _drift(gate, evidence, drift_psi)


def _bounded(rule: str, value: float | None, bound: float, says: str, missing: str) -> RuleResult:
    if value is None or not math.isfinite(value):
        return RuleResult(rule=rule, outcome=Outcome.UNKNOWN, bound=bound, reason=missing)
    return RuleResult(
        rule=rule,
        outcome=Outcome.PASS if value <= bound else Outcome.FAIL,
        observed=value,
        bound=bound,
        reason=f"{says.format(value=value)}; at most {bound:g} is allowed.",
    )


def _online(evidence: Evidence) -> RuleResult:
    parity = evidence.online_parity
    if parity is not None and parity.nothing_online:
        return RuleResult(
            rule="online_parity",
            outcome=Outcome.PASS,
            reason="Nothing is read online: all inputs come with the request.",
        )
    if parity is None or not parity.cells > 0:
        return RuleResult(
            rule="online_parity",
            outcome=Outcome.UNKNOWN,
            reason="No online value was held against its offline value.",
        )
    example = f", e.g. {parity.example}" if parity.example else ""
    return RuleResult(
        rule="online_parity",
        outcome=Outcome.PASS if parity.different == 0 else Outcome.FAIL,
        observed=parity.different,
        bound=0,
        rows=parity.cells,
        reason=f"{parity.different:,} of {parity.cells:,} online values differ from the offline "
        f"ones{example if parity.different else ''}.",
    )


def _drift(gate: Gate, evidence: Evidence, drift_psi: float) -> RuleResult:
    drift = evidence.exam_drift
    if not drift:
        return RuleResult(
            rule="max_exam_drift",
            outcome=Outcome.UNKNOWN,
            bound=gate.max_exam_drift,
            reason="Drift between training and exam was not measured.",
        )
    drifted = {name: psi for name, psi in drift.items() if not 0 <= psi <= drift_psi}
    share = len(drifted) / len(drift)
    most = max(drifted, key=lambda name: drifted[name], default="")
    worst = f", most of all {most} ({drifted[most]:.2f})" if most else ""
    return RuleResult(
        rule="max_exam_drift",
        # Drift is nobody's fault: the exam then says too little, for or against.
        outcome=Outcome.PASS if share <= gate.max_exam_drift else Outcome.UNKNOWN,
        observed=share,
        bound=gate.max_exam_drift,
        reason=f"{len(drifted)} of {len(drift)} features drifted between training and exam "
        f"(PSI above {drift_psi:g}){worst}; at most {gate.max_exam_drift:.0%} are allowed.",
    )
