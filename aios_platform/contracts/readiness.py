"""Records of the ML Test Score (Breck et al. 2017): a test, what shows that it ran, the score."""

from datetime import datetime
from enum import StrEnum

from pydantic import Field

from aios_platform.contracts.record import Record


class Section(StrEnum):
    """The four parts of the rubric, each of seven tests."""

    DATA = "data"
    MODEL = "model"
    INFRASTRUCTURE = "infrastructure"
    MONITORING = "monitoring"


class How(StrEnum):
    """How a test was run."""

    AUTOMATED = "automated"
    """The platform runs it again and again by itself: a full point."""
    MANUAL = "manual"
    """Somebody ran it, and the result is on record: half a point."""


POINTS = {How.AUTOMATED: 1.0, How.MANUAL: 0.5}


class RubricTest(Record):
    """One of the 28 tests."""

    name: str = Field(description="Section and number, e.g. 'data_1'.")
    section: Section
    asks: str = Field(description="What must hold, in a sentence.")
    remedy: str = Field(description="How to come by evidence that counts.")


class Trace(Record):
    """Something stored that shows that a test was run for a model, and held."""

    test: str
    how: How
    link: str = Field(min_length=1, description="Where it lies: a ledger row, a stored document.")
    says: str = Field(description="What it shows, in a sentence.")
    at: datetime = Field(description="When it was stored, aware.")
    expires_at: datetime | None = Field(
        default=None, description="Last moment it counts; None: it counts for the usual time."
    )


class Finding(Record):
    """What one test counts, and why."""

    test: RubricTest
    points: float = Field(ge=0, le=1)
    trace: Trace | None = Field(description="What it rests on; None: nothing that counts.")
    stale: Trace | None = Field(default=None, description="The newest evidence that is too old.")


class TestScore(Record):
    """The ML Test Score of one model."""

    __test__ = False

    model: str
    at: datetime
    findings: tuple[Finding, ...]
    sections: dict[Section, float] = Field(description="Sum of the points of each section.")
    score: float = Field(description="The smallest of the sums: the weakest part decides.")
    band: str = Field(description="What the paper calls a system of this score.")
