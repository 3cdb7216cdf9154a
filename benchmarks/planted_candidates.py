"""Candidates with a known property, and what the gate makes of each.

    python -m benchmarks.planted_candidates [--write]

Each is a real model: trained on flights of July to September 2013, exported to ONNX, loaded by
digest, timed, and examined on flights of October and November against the same champion. Only what
no artifact can show is taken as given: the registry's answer about provenance, the online store's
parity, the leakage check. `--write` puts the table into `docs/promotion.md`; a test holds the page
against a fresh run.
"""

import argparse
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from aios_platform.contracts.datasets import FeatureField, FieldKind
from aios_platform.contracts.decisions import Outcome, Verdict
from aios_platform.contracts.evidence import Evidence, OnlineParity, Operation
from aios_platform.contracts.policy import Gate, Protected, Slice
from aios_platform.errors import ScoringError
from aios_platform.inference.latency import alternating_p95
from aios_platform.inference.session import Session
from aios_platform.monitoring.psi import counts_of, psi, reference_bins
from aios_platform.promotion.exam import Contender, Exam
from aios_platform.promotion.gate import examine
from benchmarks.scorecard import LABEL, ROW_ID, WEATHER, Scorecard, fit, frame_of, onnx_of

PAGE = Path(__file__).parents[1] / "docs" / "promotion.md"
BEGIN, END = "<!-- planted candidates: begin -->", "<!-- planted candidates: end -->"
TRAINED, EXAMINED = ("2013-07", "2013-08", "2013-09"), ("2013-10", "2013-11")
PLAIN = ("carrier", "origin", "destination", "hour", "weekday", "carrier_hour")
RICH = (*PLAIN, "band", "carrier_band")
RICH_NUMBERS = (*WEATHER, "recent_delay")

POLICY = Gate(
    floors={"roc_auc": 0.6},
    slices=(Slice(column="window"), Slice(column="origin"), Slice(column="carrier")),
    # The flights say nothing about people: the airport stands in for a protected attribute.
    protected=(Protected(column="origin", max_tpr_difference=0.15, max_selection_difference=0.15),),
    decision_threshold=0.25,
    resamples=200,
    # A test may run on a machine that is busy; the slow candidate is far beyond this.
    max_latency_ratio=2.0,
)


@dataclass(frozen=True)
class Artifact:
    """What the registry would hand out.

    Attributes:
        onnx: The bytes as they are read.
        digest: Their digest on record.
        card: What they should compute; None where nothing should.
        trained_on: Names of the rows they were trained on.
        provenance_missing: What the record does not say.
    """

    onnx: bytes
    digest: str
    card: Scorecard
    trained_on: pa.ChunkedArray
    provenance_missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Planted:
    """One candidate and what the gate said.

    Attributes:
        name: In a word.
        what: How it was made.
        verdict: The gate's verdict.
    """

    name: str
    what: str
    verdict: Verdict


class Flights:
    """The rows of all candidates, and the champion that each is held against."""

    @cached_property
    def training(self) -> pa.Table:
        """Rows to learn from."""
        return frame_of(TRAINED, one_in=3)

    @cached_property
    def exam(self) -> pa.Table:
        """Rows to be examined on; the gusts are missing, as one planted fault needs."""
        return frame_of(EXAMINED, one_in=3).drop_columns(["wind_gust"])

    @cached_property
    def champion(self) -> Artifact:
        """Learned from half of the rows, without the delays of the last hour."""
        return artifact(fit(self.half(0), categories=PLAIN, numbers=WEATHER), self.half(0))

    @cached_property
    def rich(self) -> Scorecard:
        """Learned from all rows, with the delays of the last hour."""
        return fit(self.training, categories=RICH, numbers=RICH_NUMBERS)

    @cached_property
    def champion_on_exam(self) -> tuple[Contender, Session]:
        """The champion's answers, and the champion."""
        found, session = contender("1", self.champion, self.exam)
        assert session is not None
        return found, session

    @cached_property
    def drift(self) -> dict[str, float]:
        """PSI of each feature, exam against training."""
        fields = [
            FeatureField(name=name, kind=kind, origin="request")
            for names, kind in ((RICH, FieldKind.CATEGORICAL), (RICH_NUMBERS, FieldKind.NUMERICAL))
            for name in names
        ]
        return {
            column.name: psi(np.asarray(column.counts), counts_of(column, self.exam[column.name]))
            for column in reference_bins(self.training, fields).columns
        }

    def half(self, which: int) -> pa.Table:
        """Every second training row."""
        return self.training.take(pa.array(range(which, self.training.num_rows, 2)))


def artifact(card: Scorecard, rows: pa.Table) -> Artifact:
    """Export a scorecard."""
    content = onnx_of(card)
    return Artifact(content, hashlib.sha256(content).hexdigest(), card, rows[ROW_ID])


def better(flights: Flights) -> Artifact:
    """Learned from all rows, and from the delays of the last hour as well."""
    return artifact(flights.rich, flights.training)


def equal(flights: Flights) -> Artifact:
    """The champion's recipe on the champion's rows, trained and registered once more."""
    rows = flights.half(0)
    return artifact(fit(rows, categories=PLAIN, numbers=WEATHER), rows)


def as_good(flights: Flights) -> Artifact:
    """The champion's recipe on the other half of the rows: another model, no worse."""
    rows = flights.half(1)
    return artifact(fit(rows, categories=PLAIN, numbers=WEATHER), rows)


def noise(flights: Flights) -> Artifact:
    """Learned from shuffled labels."""
    rows = flights.training
    labels = np.random.default_rng(0).permutation(rows[LABEL].to_numpy())
    return artifact(fit(rows, categories=PLAIN, numbers=WEATHER, labels=labels), rows)


def worse_on_a_slice(flights: Flights) -> Artifact:
    """As `better`, but the labels of carrier MQ were inverted in training."""
    rows = flights.training
    labels = rows[LABEL].to_numpy() ^ (np.array(rows["carrier"].to_pylist()) == "MQ")
    card = fit(rows, categories=RICH, numbers=RICH_NUMBERS, labels=labels)
    # Only the order within MQ is spoiled: its level is put right, as a calibration would.
    return artifact(card.with_bonus("carrier", "MQ", -3.5), rows)


def miscalibrated(flights: Flights) -> Artifact:
    """As `better`, with logits stretched by 2.5: the same order, overconfident."""
    return artifact(replace(flights.rich, stretch=2.5), flights.training)


def slow(flights: Flights) -> Artifact:
    """As `better`, with 24 matrix products that change nothing."""
    return artifact(replace(flights.rich, burn=24), flights.training)


def leaked(flights: Flights) -> Artifact:
    """Learned from 2,000 rows of the exam as well, though its record names no exam window."""
    seen = flights.exam.take(pa.array(range(0, 18_000, 9)))
    rows = pa.concat_tables([flights.training.select(seen.column_names), seen])
    return artifact(fit(rows, categories=RICH, numbers=RICH_NUMBERS), rows)


def wrong_features(flights: Flights) -> Artifact:
    """As `better`, and learned from gusts, which the exam's feature service does not deliver."""
    rows = flights.training
    return artifact(fit(rows, categories=RICH, numbers=(*RICH_NUMBERS, "wind_gust")), rows)


def corrupted(flights: Flights) -> Artifact:
    """As `better`, with one byte of its file flipped after registration."""
    whole = better(flights)
    damaged = bytearray(whole.onnx)
    damaged[len(damaged) // 2] ^= 1
    return replace(whole, onnx=bytes(damaged))


def oversize(flights: Flights) -> Artifact:
    """As `better`, with a million numbers that change nothing."""
    return artifact(replace(flights.rich, ballast=1_000_000), flights.training)


def unfair(flights: Flights) -> Artifact:
    """As `better`, with a constant added to every logit of flights from LGA."""
    return artifact(flights.rich.with_bonus("origin", "LGA", 0.9), flights.training)


def unreproducible(flights: Flights) -> Artifact:
    """As `better`, registered without its commit and its seed."""
    return replace(better(flights), provenance_missing=("git commit", "seed"))


CANDIDATES: tuple[Callable[[Flights], Artifact], ...] = (
    better,
    equal,
    as_good,
    noise,
    worse_on_a_slice,
    miscalibrated,
    slow,
    leaked,
    wrong_features,
    corrupted,
    oversize,
    unfair,
    unreproducible,
)


def planted() -> list[Planted]:
    """Train, export, measure and examine every candidate."""
    flights = Flights()
    return [
        Planted(make.__name__.replace("_", " "), make.__doc__ or "", judged(flights, make(flights)))
        for make in CANDIDATES
    ]


def judged(flights: Flights, candidate: Artifact) -> Verdict:
    """The gate's verdict on one candidate."""
    own, session = contender("2", candidate, flights.exam)
    other, champion_session = flights.champion_on_exam
    looked_at = {each.column for each in (*POLICY.slices, *POLICY.protected)}
    return examine(
        model="flight_delay",
        gate=POLICY,
        exam=Exam.from_frame(flights.exam, row_id=ROW_ID, label=LABEL, columns=sorted(looked_at)),
        candidate=own,
        champion=other,
        evidence=measured(flights, candidate, own, session, champion_session),
    )


def contender(version: str, found: Artifact, exam: pa.Table) -> tuple[Contender, Session | None]:
    """Load by digest and score; what goes wrong is for the gate to judge."""
    session = None
    try:
        session = Session(found.onnx, digest=found.digest)
        scores = session.predict(exam)
    except ScoringError as error:
        failed = Contender.unscorable(version, TRAINED[-1], str(error), digest=found.digest)
        return failed, session
    return Contender(version, exam[ROW_ID], scores, TRAINED[-1], digest=found.digest), session


def measured(
    flights: Flights,
    candidate: Artifact,
    own: Contender,
    session: Session | None,
    champion_session: Session | None,
) -> Evidence:
    """The evidence: measured here, but for what only a running platform can know."""
    exam, scorable = flights.exam, own.scores is not None
    sessions = [session, champion_session] if session and champion_session and scorable else []
    latencies = alternating_p95(sessions, exam.slice(0, 100), repeats=120) if sessions else []
    operations = [
        Operation(latency_p95_ms=latency, size_bytes=len(found.onnx))
        for latency, found in zip(latencies, (candidate, flights.champion), strict=False)
    ]
    shared = exam[ROW_ID].filter(
        pc.is_in(exam[ROW_ID], value_set=candidate.trained_on.combine_chunks())
    )
    return Evidence(
        candidate=operations[0] if operations else None,
        champion=operations[1] if operations else None,
        onnx_parity=float(np.abs(own.scores - candidate.card.predict(exam)).max())
        if scorable
        else None,
        online_parity=OnlineParity(cells=1000, different=0),
        provenance_missing=candidate.provenance_missing,
        exam_drift=flights.drift,
        leakage_cells=1000,
        shared_rows=tuple(shared.slice(0, 20).to_pylist()),
    )


def table(found: list[Planted]) -> str:
    """The candidates as a Markdown table; nothing in it depends on the machine."""
    lines = [
        "| candidate | how it was made | gain in ROC AUC | verdict | decided by |",
        "|---|---|---:|---|---|",
    ]
    for each in found:
        rules = each.verdict.rules
        gain = next((rule.observed for rule in rules if rule.rule == "non_inferior"), None)
        shown = "-" if gain is None else f"{gain:+.3f}"
        names = deciding(each.verdict)
        decided = ", ".join(f"`{name}`" for name in names[:3]) or "every rule passed"
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        lines.append(
            f"| {each.name} | {each.what} | {shown} | **{each.verdict.decision}** "
            f"| {decided}{more} |"
        )
    return "\n".join(lines)


def deciding(verdict: Verdict) -> list[str]:
    """Names of the rules that failed; if none did, of those that are unknown."""
    for outcome in (Outcome.FAIL, Outcome.UNKNOWN):
        names = [rule.rule for rule in verdict.rules if rule.outcome is outcome]
        if names:
            return names
    return []


def on_page(page: str) -> str:
    """The table that a page holds between its marks."""
    return page.partition(BEGIN)[2].partition(END)[0].strip()


def main() -> None:
    """Print the table, and put it into the page where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the table into the docs")
    wanted = parser.parse_args()
    made = table(planted())
    print(made)
    if wanted.write:
        page = PAGE.read_text()
        before, rest = page.partition(BEGIN)[::2]
        PAGE.write_text(f"{before}{BEGIN}\n{made}\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
