"""A replay told to somebody who has never seen the project: what happened, what the words mean."""

from collections.abc import Iterator

from aios_platform.contracts.replays import Gain, Replay
from aios_platform.replay.texts import (
    MEANINGS,
    better,
    capital,
    confidence,
    counted,
    fate,
    listed,
    metric_name,
    pace,
    places,
    signed,
    standing,
    times,
)


def happened(replay: Replay) -> list[str]:
    """The course of events, in sentences computed from the record."""
    return [
        sentence
        for sentence in (
            *_beginning(replay),
            *_trainings(replay),
            *_worth(replay),
            *_by_window(replay),
            *_estimates(replay),
            *_trouble(replay),
        )
        if sentence
    ]


def _beginning(replay: Replay) -> Iterator[str]:
    """Until the first champion."""
    for window in replay.windows:
        for training in window.trainings:
            if training.promoted:
                yield (
                    f"The first version to go live was version {training.version}, after "
                    f"{window.window}. It had learnt from the data through "
                    f"{training.trained_through}."
                )
                return
            reasons = " ".join(training.reasons[:2])
            yield (
                f"After {window.window}, version {training.version} was {fate(training)} by the "
                f"gate: {reasons}"
                if reasons
                else f"After {window.window}, version {training.version} was {fate(training)}."
            )


def _trainings(replay: Replay) -> Iterator[str]:
    """What came of the trainings after the first champion."""
    every = [training for window in replay.windows for training in window.trainings]
    first = next((place for place, each in enumerate(every) if each.promoted), len(every))
    later = every[first + 1 :]
    if not later:
        return
    helped = sum(each.promoted and each.helped is True for each in later)
    tolerated = sum(each.promoted and each.helped is not True for each in later)
    parts = [
        (helped, "went live, better on the exam than the version before"),
        (tolerated, "went live, no better but within what the gate tolerates"),
        (len(later) - helped - tolerated, "did not go live"),
    ]
    told = "; ".join(f"{count} {what}" for count, what in parts if count)
    yield f"{counted(len(later), 'training')} followed: {told}."


def _by_window(replay: Replay) -> Iterator[str]:
    every = pace(replay.windows)
    for whom, gains in (
        ("one never retrained", [window.against_never for window in replay.windows]),
        (f"one retrained every {every}", [window.against_every for window in replay.windows]),
    ):
        if known := [gain for gain in gains if gain]:
            yield f"The live model against {whom}, {every} by {every}: {_tally(known)}."


def _worth(replay: Replay) -> Iterator[str]:
    """What the trainings gained, beside what as many as possible would have."""
    never, every = replay.against_never, replay.against_every
    if never is None or every is None or never.windows != every.windows:
        return
    digits, name = places(replay), metric_name(replay.metric)
    yield (
        f"Beside never retraining, retraining every {pace(replay.windows)} was worth "
        f"{signed(never.value - every.value, digits)} {name} on average, with "
        f"{counted(replay.trainings_every, 'training')}; what the platform did was worth "
        f"{signed(never.value, digits)}, with {replay.trainings}."
    )


def _tally(gains: list[Gain]) -> str:
    """How often the live model was better, worse and so on."""
    found = [standing(gain) for gain in gains]
    kinds = ("better", "worse", "no different", "identical")
    return listed(f"{times(found.count(kind))} {kind}" for kind in kinds if kind in found)


def _estimates(replay: Replay) -> Iterator[str]:
    found = [window.expectation for window in replay.windows if window.expectation]
    if found:
        held = sum(expectation.inside for expectation in found)
        yield (
            f"The estimate that is made before the outcomes are known held in {held} of "
            f"{counted(len(found), pace(replay.windows))}."
        )


def _trouble(replay: Replay) -> Iterator[str]:
    windows, every = replay.windows, pace(replay.windows)
    missing = sum(bool(window.missing) for window in windows)
    drifted = sum(bool(window.drift and window.drift.status == "drifted") for window in windows)
    judged = sum(window.drift is not None for window in windows)
    faulty = sum(bool(window.faults) for window in windows)
    alerts = sum(len(window.alerts) for window in windows)
    if missing:
        yield f"{counted(missing, every)} brought no data."
    if judged:
        yield f"The data had drifted in {drifted} of the {counted(judged, every)} looked at."
    found = f"Data faults were found in {counted(faulty, every)}"
    sent = f"{counted(alerts, 'alert')} {'was' if alerts == 1 else 'were'} sent"
    yield (
        f"{found if faulty else 'No data fault was found'}, and "
        f"{sent if alerts else 'no alert was sent'}."
    )


def terms(replay: Replay) -> list[tuple[str, str]]:
    """The words of the page, in the order in which a reader meets them."""
    every, name = pace(replay.windows), metric_name(replay.metric)
    meaning = MEANINGS.get(replay.metric)
    return [
        (
            "Replay",
            "Past data is delivered again, one "
            f"{every} at a time, to the same jobs that run in production. At each step the "
            "platform knows only what was known then, so nothing here was decided with hindsight.",
        ),
        (
            "Live model, champion",
            f"The version that made the predictions when the {every} came. The platform chose "
            "it; this is what is on trial.",
        ),
        (
            "Never retrained",
            "A yardstick: the first version that went live, kept to the end. What does "
            "retraining gain at all?",
        ),
        (
            f"Retrained every {every}",
            f"A yardstick: trained again whenever another {every} is complete, and always taken. "
            "What would retraining without a second thought gain, and cost?",
        ),
        (
            capital(name),
            f"The figure of merit: {meaning}."
            if meaning
            else f"The figure of merit; {better(replay.metric)}.",
        ),
        (
            "Interval",
            f"A {every} is only a sample. The true value lies within the interval with "
            f"{confidence(replay)} confidence. A difference whose interval contains 0 may be "
            "chance, and is called no different here.",
        ),
        (
            "Estimate",
            "What the model's own scores promised before any outcome was known. Where the "
            "measured value lies outside, the world changed, not just the rows.",
        ),
        (
            "Drift",
            "Features whose values differ from those the live model learnt from. By importance: "
            "each counts as much as the model uses it. Drift alone never leads to a training.",
        ),
        (
            "Baseline",
            "What a version reached on its exam. It counts as degraded when it falls clearly "
            "below that.",
        ),
        (
            "Decision",
            f"Once the outcomes of a {every} are known: train again, or hold; always with a cause.",
        ),
        (
            "Exam and verdict",
            "A new version and the live one are scored on the same rows, which neither has "
            "learnt from. The verdict is promote, reject or inconclusive. Only a promoted "
            "version goes live.",
        ),
    ]
