"""Rules on the contenders themselves: may this comparison count at all?"""

from collections.abc import Iterator

from aios_platform.contracts.decisions import Outcome, RuleResult
from aios_platform.contracts.evidence import Evidence
from aios_platform.promotion.exam import Contender, Exam
from aios_platform.promotion.rules import sized


def unseen(exam: Exam, candidate: Contender, champion: Contender | None) -> Iterator[RuleResult]:
    """No contender may have been trained on a window of the exam, or on a later one."""
    first = min(exam.windows, default="")
    contenders = [("candidate", candidate, Outcome.FAIL)]
    if champion is not None:
        contenders.append(("champion", champion, Outcome.UNKNOWN))
    for role, contender, otherwise in contenders:
        through = contender.trained_through
        known = bool(first and through)
        if known and through < first:
            yield RuleResult(
                rule=f"{role}_unseen",
                outcome=Outcome.PASS,
                reason=f"The {role} was trained through {through}; the exam begins with {first}.",
            )
        else:
            yield RuleResult(
                rule=f"{role}_unseen",
                outcome=otherwise if known else Outcome.UNKNOWN,
                reason=f"The {role} was trained through {through or 'an unknown window'}, and the "
                f"exam begins with {first or 'none'}: its rows must be unseen.",
            )


def origin(evidence: Evidence, known: frozenset[str]) -> Iterator[RuleResult]:
    """The candidate's rows, their leakage check, its provenance, and whether it is a sample.

    Args:
        evidence: What was measured and can be read.
        known: Names of the pieces of evidence that are there.
    """
    shared = evidence.shared_rows
    if shared is None:
        yield _unknown("shared_rows", "It is not known whether exam rows were trained on.")
    elif shared:
        yield RuleResult(
            rule="shared_rows",
            outcome=Outcome.FAIL,
            observed=len(shared),
            bound=0,
            reason=f"The candidate was trained on rows of the exam, e.g. {', '.join(shared[:5])}: "
            "their outcome is no evidence.",
        )
    else:
        yield RuleResult(
            rule="shared_rows",
            outcome=Outcome.PASS,
            observed=0,
            bound=0,
            reason="No row of the exam is among the training rows.",
        )
    cells = evidence.leakage_cells
    if "nothing_joined" not in known:
        yield _unknown("leakage", "It is not known whether the candidate's inputs were joined.")
    elif evidence.nothing_joined:
        yield RuleResult(
            rule="leakage",
            outcome=Outcome.PASS,
            reason="Every input comes with the request, and was known by then.",
        )
    elif cells is None or not cells > 0:
        yield _unknown("leakage", "No feature value was made again from what was known.")
    else:
        yield RuleResult(
            rule="leakage",
            outcome=Outcome.PASS,
            observed=cells,
            bound=1,
            reason=f"{sized(cells, 'feature value')}, made again from what was known, are equal.",
        )
    missing = evidence.provenance_missing
    if missing is None:
        yield _unknown("provenance", "The candidate's provenance could not be read.")
    else:
        yield RuleResult(
            rule="provenance",
            outcome=Outcome.FAIL if missing else Outcome.PASS,
            observed=len(missing),
            bound=0,
            reason=f"The registered version does not say: {', '.join(missing)}; it cannot be "
            "reproduced."
            if missing
            else "The registered version says what it was made from.",
        )
    if "sampled" not in known:
        yield _unknown("sampled", "It is not known whether the candidate saw all training rows.")
    else:
        yield RuleResult(
            rule="sampled",
            outcome=Outcome.FAIL if evidence.sampled else Outcome.PASS,
            reason="The candidate was trained on a sample of the training rows: it is judged, and "
            "never promoted."
            if evidence.sampled
            else "The candidate was trained on all rows of its training set.",
        )


def _unknown(rule: str, reason: str) -> RuleResult:
    return RuleResult(rule=rule, outcome=Outcome.UNKNOWN, reason=reason)
