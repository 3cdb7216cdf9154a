"""What the stores of this installation say of a model's champion, read once."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

from aios_platform.components.model_lifecycle.candidates import CANDIDATE
from aios_platform.components.model_lifecycle.documents import find_document
from aios_platform.components.model_lifecycle.names import Names
from aios_platform.components.model_lifecycle.state import VERDICT
from aios_platform.contracts.decisions import (
    Champion,
    Outcome,
    RetrainDecision,
    RuleResult,
    Verdict,
)
from aios_platform.contracts.readiness import How, Trace
from aios_platform.contracts.record import Record
from aios_platform.ledger.champions import champion_of
from aios_platform.ledger.entries import LedgerEntry, entries
from aios_platform.ledger.health import MOST_ROWS, RETRAIN_DECISION
from aios_platform.resources.stores import Stores

R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class Facts:
    """A model and where what is known of it lies.

    Args:
        names: The model.
        stores: Where everything is.
    """

    names: Names
    stores: Stores
    _rows: dict[str, list[LedgerEntry]] = field(default_factory=dict)

    def rows(self, kind: str) -> list[LedgerEntry]:
        """The ledger's rows of a kind about the model, newest first."""
        if kind not in self._rows:
            self._rows[kind] = entries(
                self.stores.database, subject=self.names.model, kind=kind, limit=MOST_ROWS
            )
        return self._rows[kind]

    @cached_property
    def champion(self) -> Champion | None:
        """The live version."""
        return champion_of(self.stores.database, self.names.model)

    @cached_property
    def candidate(self) -> LedgerEntry | None:
        """The row of the champion's training; None where it says nothing of checks and speed."""
        for row in self.rows(CANDIDATE):
            if (
                self.champion
                and row.payload["version"] == self.champion.version
                and row.payload["model_digest"] == self.champion.model_digest
            ):
                # A version of an earlier release.
                return row if "checks" in row.payload else None
        return None

    @cached_property
    def verdict(self) -> tuple[LedgerEntry, Verdict] | None:
        """The gate's newest verdict on the champion, and its row."""
        for row in self.rows(VERDICT):
            verdict = Verdict.model_validate(row.payload["verdict"])
            if self.champion and verdict.candidate_version == self.champion.version:
                return row, verdict
        return None

    @cached_property
    def decision(self) -> tuple[LedgerEntry, RetrainDecision] | None:
        """The newest retrain decision on the champion, and its row."""
        for row in self.rows(RETRAIN_DECISION):
            if self.champion and str(row.payload["version"]) == self.champion.version:
                return row, RetrainDecision.model_validate(row.payload["decision"])
        return None

    def document(self, kind: str, key: str, record: type[R]) -> R | None:
        """What monitoring keeps about a window."""
        return find_document(self.names, self.stores.artifacts, kind, key, record)

    def passed(self, test: str, *prefixes: str) -> list[Trace]:
        """One trace where the verdict on the champion judged such rules, and all of them passed."""
        if self.verdict is None:
            return []
        row, verdict = self.verdict
        rules: list[RuleResult] = [
            rule
            for rule in verdict.rules
            if rule.rule.startswith(prefixes) and rule.outcome is not Outcome.NOTED
        ]
        if not rules or any(rule.outcome is not Outcome.PASS for rule in rules):
            return []
        told = f"{len(rules)} rules passed, the first: {rules[0].reason}"
        return [of_row(test, How.AUTOMATED, row, rules[0].reason if len(rules) == 1 else told)]


def of_row(test: str, how: How, row: LedgerEntry, says: str) -> Trace:
    """A trace that is a row of the ledger."""
    link = f"ledger row {row.seq}"
    return Trace(test=test, how=how, link=link, says=says, at=row.recorded_at)
