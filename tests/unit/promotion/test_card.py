"""The model card: everything that a person asks, and nothing that a browser would run."""

from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from aios_platform.contracts.datasets import FeatureField, FeatureSchema, FieldKind
from aios_platform.contracts.decisions import ApprovalRequest, CalibrationBin, Outcome, RuleResult
from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.contracts.evidence import Evidence, Operation
from aios_platform.promotion.card import model_card
from tests.unit.promotion.test_report import HOSTILE, Tags, verdict

NOON = datetime(2014, 1, 1, 12, tzinfo=UTC)
FEATURES = FeatureSchema(
    fields=tuple(
        FeatureField(name=name, kind=FieldKind.NUMERICAL, origin="request")
        for name in ("distance", "minute_of_day")
    )
)


@pytest.fixture(scope="module")
def declaration():
    path = Path(__file__).parents[3] / "aios_platform/defs/flight_delay/defs.yaml"
    return ModelDeclaration.model_validate(yaml.safe_load(path.read_text())["attributes"])


def card(declaration, judged, **more):
    return model_card(
        declaration=declaration,
        verdict=judged,
        author="ann",
        training_windows=("2013-01", "2013-09"),
        training_rows=240_000,
        training_set_digest="cd" * 32,
        features=FEATURES,
        **more,
    )


def rich():
    waiver = RuleResult(
        rule="max_size_mib", outcome=Outcome.WAIVED, waiver=7, reason="Waived by bob."
    )
    small = RuleResult(
        rule="slice_carrier=OO",
        outcome=Outcome.NOTED,
        slice="carrier=OO",
        detectable=0.21,
        rows=29,
        reason="too few",
    )
    return verdict(
        rules=(*verdict().rules, waiver, small),
        candidate_intervals={"roc_auc": (0.765, 0.777)},
        by_slice={
            "carrier=EV": {"rows": 2600, "candidate": 0.61, "champion": 0.68},
            "carrier=UA": {"rows": 5600, "candidate": 0.81, "champion": 0.8},
            "carrier=OO": {"rows": 29, "candidate": 0.2, "champion": 0.3},
        },
        calibration=(
            CalibrationBin(score=0.1, share=0.11, low=0.09, high=0.13, rows=2800),
            CalibrationBin(score=0.9, share=0.5, low=0.48, high=0.52, rows=2800),
        ),
    )


def test_card_answers_what_who_when_how_good_where_weak(declaration):
    text = card(
        declaration,
        rich(),
        evidence=Evidence(candidate=Operation(latency_p95_ms=0.25, size_bytes=204_800)),
        approval=ApprovalRequest(
            ledger_row=12,
            model="flight_delay",
            candidate_version="2",
            author="ann",
            evidence_digest="ef" * 32,
            requested_at=NOON,
            expires_at=NOON,
            state="approved",
            decided_by="carol",
            reason="looked at EV",
        ),
    )
    for expected in (
        "# flight_delay, version 2",
        "INCONCLUSIVE",
        "arrive more than",
        "Owner: team:operations",
        "Trained by: ann",
        "Judged: 2014-01-01 00:00 UTC",
        "Approval: approved by carol (ledger row 12): looked at EV",
        "Waiver (ledger row 7) of `max_size_mib`",
        "| training | 2013-01 to 2013-09 | 240,000 |",
        "| exam | 2013-10 to 2013-12 | 28,000 |",
        "| **roc_auc** | more | 0.7712 | 0.7650 to 0.7770 | 0.7742 |",
        "| 0.900 | 0.500 (off) | 0.480 to 0.520 | 2,800 |",
        "| 0.100 | 0.110 | 0.090 to 0.130 | 2,800 |",
        "| carrier=EV | 2,600 | 0.6100 | 0.6800 | fail |",
        "No protected attribute is declared",
        "carrier=OO (29 rows, 0.210)",
        "| p95 latency of one row, ms | 0.250 | - |",
        "nothing that happened after 2013-09",
        rich().evidence_digest,
    ):
        assert expected in text, expected
    assert "| carrier=OO | 29" not in text
    assert text.index("carrier=EV | 2,600") < text.index("carrier=UA | 5,600")


def test_card_of_a_version_that_could_not_be_scored(declaration):
    text = card(declaration, verdict(rules=(), candidate_metrics={}, exam_windows=()))
    assert "It could not be scored on the exam." in text
    assert "No slice of at least 500 rows was looked at." in text


def test_card_makes_text_from_outside_inert(declaration):
    text = model_card(
        declaration=declaration.model_copy(update={"description": HOSTILE}),
        verdict=verdict(),
        author=HOSTILE,
        training_windows=(HOSTILE,),
        training_rows=1,
        training_set_digest="",
        features=FEATURES,
    )
    parser: HTMLParser = Tags()
    parser.feed(text)
    assert parser.found == []
    assert "[a](" not in text
    assert "\n# heading" not in text
