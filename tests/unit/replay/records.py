"""Replays to render: a year as it was, and any that the contract allows."""

from datetime import UTC, datetime

from hypothesis import strategies as st

from aios_platform.contracts.replays import (
    DecisionSummary,
    DriftSummary,
    Expectation,
    Figure,
    Gain,
    Replay,
    ReplayedWindow,
    TrainingSummary,
)


def figure(value, through="2013-04", version="2"):
    return Figure(
        version=version, trained_through=through, value=value, low=value - 0.006, high=value + 0.006
    )


def gain(value, reach=0.002, windows=1):
    return Gain(
        value=value,
        low=value - reach,
        high=value + reach,
        standard_error=reach / 2,
        windows=windows,
    )


def training(version="3", **more):
    fields = {
        "cause": "new_data",
        "version": version,
        "trained_through": "2013-05",
        "exam": ("2013-06",),
        "verdict": "promote",
        "reasons": ("roc_auc is 0.0012 better.", "21 rules passed."),
        "promoted": True,
        "helped": True,
        "seconds": 17.9,
        "ledger_row": 22,
    }
    return TrainingSummary(**{**fields, **more})


def window(key, **more):
    fields = {
        "window": key, "rows": 28_243, "labelled": 27_448, "base_rate": 0.32, "live": None,
        "seconds": 31.2,
    }  # fmt: skip
    return ReplayedWindow(**{**fields, **more})


def live_window(key, value=0.7796, never=0.7763, every=0.7683, **more):
    fields = {
        "live": figure(value, "2013-05", "3"),
        "never": figure(never),
        "every": figure(every, "2013-06", ""),
        "against_never": gain(value - never),
        "against_every": gain(value - every),
        "expectation": Expectation(value=0.8034, low=0.7954, high=0.8114, inside=False),
        "drift": DriftSummary(
            status="drifted", share=0.24, weighted_share=0.35,
            features=("tail_slack", "overdue", "wind", "rain", "gusts"),
        ),
        "decision": DecisionSummary(
            action="hold", cause="healthy", reason="roc_auc is not shown to be worse.",
            ledger_row=31,
        ),
    }  # fmt: skip
    return window(key, **{**fields, **more})


REFUSED = training(
    "1", verdict="reject", promoted=False, helped=None, ledger_row=9,
    reasons=("ece is 0.0530 (0.0484 to 0.0576); at most 0.05 is required.",),
)  # fmt: skip
YEAR = (
    window("2013-01"),
    window("2013-02", missing="the source had nothing", rows=0, labelled=0, base_rate=None),
    window("2013-03", trainings=(REFUSED,), alerts=("candidate: version 1 was refused",)),
    window("2013-04", afterwards=figure(0.7929), trainings=(training("2", helped=None),)),
    live_window("2013-05", trainings=(training("3"),)),
    live_window("2013-06", 0.7771, faults=("flights: 40% of the values are missing.",)),
    window("2013-07", missing="it did not come"),
    live_window("2013-08", 0.7635, trainings=(training("4", helped=False),)),
)


def replay(windows=YEAR, **more):
    fields = {
        "model": "flight_delay",
        "description": "Will the flight arrive more than 15 minutes late?",
        "metric": "roc_auc",
        "confidence": 0.95,
        "first": "2013-01",
        "last": "2013-08",
        "windows": tuple(windows),
        "against_never": gain(0.0069, windows=3),
        "against_every": gain(-0.0011, 0.0005, windows=3),
        "trainings": 3,
        "trainings_every": 6,
        "training_seconds": 96.8,
        "training_seconds_every": 141.3,
        "runs": 31,
        "seconds": 262.4,
        "yardstick_seconds": 151.9,
        "digest": "9f4c" * 16,
        "declaration_digest": "31ab" * 16,
        "finished_at": datetime(2026, 1, 5, 14, 3, tzinfo=UTC),
    }
    return Replay(**{**fields, **more})


FINITE = st.floats(allow_nan=False, allow_infinity=False)
# Mostly near one another, as metrics are.
VALUES = st.one_of(st.floats(0.5, 0.9), FINITE)
SECONDS = st.floats(0, 1e7)
TEXT = st.one_of(st.sampled_from(["", "2013-06", "reject", "drifted"]), st.text(max_size=30))
TEXTS = st.lists(TEXT, max_size=4).map(tuple)
COUNTS = st.integers(0, 10**9)
FIGURES = st.builds(
    Figure, version=TEXT, trained_through=TEXT, value=VALUES, low=VALUES, high=VALUES
)
GAINS = st.builds(
    Gain, value=VALUES, low=VALUES, high=VALUES, standard_error=VALUES, windows=st.integers(1, 99)
)
WINDOWS = st.builds(
    ReplayedWindow,
    window=TEXT,
    rows=COUNTS,
    labelled=COUNTS,
    base_rate=st.none() | FINITE,
    missing=TEXT,
    live=st.none() | FIGURES,
    afterwards=st.none() | FIGURES,
    never=st.none() | FIGURES,
    every=st.none() | FIGURES,
    against_never=st.none() | GAINS,
    against_every=st.none() | GAINS,
    expectation=st.none()
    | st.builds(Expectation, value=VALUES, low=VALUES, high=VALUES, inside=st.booleans()),
    drift=st.none()
    | st.builds(
        DriftSummary,
        status=TEXT,
        share=st.none() | FINITE,
        weighted_share=st.none() | FINITE,
        features=TEXTS,
    ),
    faults=TEXTS,
    decision=st.none()
    | st.builds(DecisionSummary, action=TEXT, cause=TEXT, reason=TEXT, ledger_row=COUNTS),
    trainings=st.lists(
        st.builds(
            TrainingSummary,
            cause=TEXT,
            version=TEXT,
            trained_through=TEXT,
            exam=TEXTS,
            verdict=TEXT,
            reasons=TEXTS,
            promoted=st.booleans(),
            helped=st.none() | st.booleans(),
            seconds=SECONDS,
            ledger_row=COUNTS,
        ),
        max_size=2,
    ).map(tuple),
    alerts=TEXTS,
    seconds=SECONDS,
)
REPLAYS = st.builds(
    replay,
    windows=st.lists(WINDOWS, max_size=4),
    model=TEXT,
    description=TEXT,
    metric=TEXT,
    confidence=FINITE,
    first=TEXT,
    last=TEXT,
    against_never=st.none() | GAINS,
    against_every=st.none() | GAINS,
    trainings=COUNTS,
    seconds=SECONDS,
    digest=TEXT,
)
