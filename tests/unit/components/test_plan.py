"""The plan on its own: what a lifecycle needs next, for every state it can be in."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aios_platform.components.model_lifecycle.plan import (
    Job,
    LifecycleState,
    next_run,
    split_windows,
)
from aios_platform.contracts.declaration import ModelDeclaration
from tests.unit.contracts.test_declaration import MINIMAL

DECLARATION = ModelDeclaration.model_validate(
    MINIMAL | {"training": {"min_windows": 3}, "exam": {"windows": 2}}
)
MONTHS = tuple(f"2013-{month:02}" for month in range(1, 13))


def state(**changes) -> LifecycleState:
    base = {
        "closed": MONTHS,
        "matured": MONTHS,
        "featured": frozenset(MONTHS),
        "champion_version": "1",
        "trained_through": "2013-10",
        "settled": frozenset(MONTHS),
        "scored": frozenset(MONTHS[10:]),
        "judged": frozenset(MONTHS[10:]),
    }
    return LifecycleState(**(base | changes))


def test_a_model_that_has_everything_needs_nothing():
    assert next_run(DECLARATION, state()) is None


def test_missing_windows_come_first_in_one_contiguous_range():
    run = next_run(
        DECLARATION, state(featured=frozenset(MONTHS) - {"2013-03", "2013-04", "2013-09"})
    )
    assert (run.job, run.first, run.last) == (Job.SCORE, "2013-03", "2013-04")


def test_a_new_model_is_trained_once_there_are_enough_matured_windows():
    few = state(champion_version=None, trained_through=None, matured=MONTHS[:4], scored=frozenset())
    assert next_run(DECLARATION, few) is None
    enough = few.model_copy(update={"matured": MONTHS[:5]})
    run = next_run(DECLARATION, enough)
    assert run.job is Job.RETRAIN
    judged = enough.model_copy(update={"verdicts": frozenset({run.cause})})
    assert next_run(DECLARATION, judged) is None, "a refused candidate is not trained again"
    more = judged.model_copy(update={"matured": MONTHS[:6]})
    assert next_run(DECLARATION, more).job is Job.RETRAIN, "new data is a new cause"


def test_a_first_champion_scores_what_came_after_its_training():
    run = next_run(DECLARATION, state(scored=frozenset(), judged=frozenset()))
    assert (run.job, run.first, run.last) == (Job.SCORE, "2013-11", "2013-12")


def test_a_decision_to_retrain_is_answered_once():
    wanted = state(retrain_wanted="decision on window 2013-12")
    run = next_run(DECLARATION, wanted)
    assert run.job is Job.RETRAIN
    for answer in ("verdicts", "given_up"):
        answered = wanted.model_copy(update={answer: frozenset({run.cause})})
        assert next_run(DECLARATION, answered) is None


def test_an_approval_is_carried_out_before_anything_else():
    approved = state(approved=17, featured=frozenset(), retrain_wanted="why")
    run = next_run(DECLARATION, approved)
    assert (run.job, run.request) == (Job.PROMOTE, 17)
    assert run.key("m") != next_run(DECLARATION, state(approved=18)).key("m")


def test_labels_that_mature_later_bring_a_scored_window_back_for_its_decision():
    waiting = state(judged=frozenset(), matured=MONTHS[:11])
    run = next_run(DECLARATION, waiting)
    assert (run.job, run.first, run.last) == (Job.MEASURE, "2013-10", "2013-11")


def test_windows_are_read_again_when_their_labels_are_complete_before_anything_is_trained():
    early = state(champion_version=None, trained_through=None, settled=frozenset(MONTHS[:6]))
    run = next_run(DECLARATION, early)
    assert (run.job, run.first, run.last) == (Job.MEASURE, "2013-06", "2013-12")
    read = early.model_copy(update={"settled": frozenset(MONTHS)})
    assert next_run(DECLARATION, read).job is Job.RETRAIN
    refused = early.model_copy(update={"passed_over": frozenset(MONTHS[6:])})
    assert next_run(DECLARATION, refused).job is Job.RETRAIN, "the last good version stays"


def test_the_windows_before_one_that_matured_are_measured_again_with_it():
    declared = DECLARATION.model_dump(mode="json", exclude_defaults=True)
    declared["label"]["corrections_windows"] = 3
    declaration = ModelDeclaration.model_validate(declared)
    scored = frozenset(MONTHS[6:])
    late = state(scored=scored, judged=scored - {"2013-12"}, trained_through="2013-06")
    assert next_run(declaration, late).first == "2013-09"
    few = late.model_copy(update={"featured": scored - {"2013-10"}, "passed_over": {"2013-10"}})
    run = next_run(declaration, few.model_copy(update={"closed": MONTHS[6:]}))
    assert run.first == "2013-11", "October never came"


def test_a_window_that_does_not_come_stops_none_after_it():
    gap = state(
        featured=frozenset(MONTHS) - {"2013-03", "2013-04"}, asked={"2013-03": 2},
        passed_over=frozenset({"2013-03"}),
    )  # fmt: skip
    run = next_run(DECLARATION, gap)
    assert (run.first, run.last) == ("2013-04", "2013-04")
    rest = gap.model_copy(update={"featured": frozenset(MONTHS) - {"2013-03"}})
    assert next_run(DECLARATION, rest) is None


def test_a_late_window_is_asked_for_again_with_those_whose_history_it_is():
    due = state(featured=frozenset(MONTHS) - {"2013-03"}, asked={"2013-03": 2})
    run = next_run(DECLARATION, due)
    assert (run.job, run.first, run.last) == (Job.SCORE, "2013-03", "2013-04")
    again = due.model_copy(update={"asked": {"2013-03": 3}})
    assert next_run(DECLARATION, again).cause != run.cause, "each time is a cause of its own"


def test_a_repetition_that_was_refused_is_asked_for_under_a_cause_of_its_own():
    early = state(settled=frozenset(MONTHS[:11]))
    first = next_run(DECLARATION, early)
    once, twice = (
        next_run(DECLARATION, early.model_copy(update={"asked": {"2013-12": times}}))
        for times in (1, 2)
    )
    assert (first.first, first.last) == (once.first, once.last) == (twice.first, twice.last)
    # Equal causes whose runs end well are given up as a defect of the plan.
    assert len({first.cause, once.cause, twice.cause}) == 3


def test_a_block_that_was_given_up_is_passed_over():
    gap = state(featured=frozenset(MONTHS) - {"2013-03", "2013-09"})
    first = next_run(DECLARATION, gap)
    run = next_run(DECLARATION, gap.model_copy(update={"given_up": frozenset({first.cause})}))
    assert (run.first, run.last) == ("2013-09", "2013-09")


def test_equal_needs_have_equal_keys_and_others_have_not():
    one = next_run(DECLARATION, state(retrain_wanted="December"))
    assert one.key("m") == next_run(DECLARATION, state(retrain_wanted="December")).key("m")
    assert one.key("m") != next_run(DECLARATION, state(retrain_wanted="November")).key("m")
    assert one.key("m") != one.key("n")


@settings(max_examples=200, deadline=None)
@given(
    count=st.integers(0, 12),
    featured=st.sets(st.sampled_from(MONTHS)),
    scored=st.sets(st.sampled_from(MONTHS)),
    champion=st.booleans(),
)
def test_carrying_out_the_plan_always_comes_to_an_end(count, featured, scored, champion):
    now = state(
        closed=MONTHS[:count],
        matured=MONTHS[:count],
        featured=frozenset(featured),
        scored=frozenset(scored) if champion else frozenset(),
        judged=frozenset(),
        settled=frozenset(),
        champion_version="1" if champion else None,
        trained_through=MONTHS[max(0, count - 3)] if champion else None,
    )
    causes = set()
    for _ in range(40):
        run = next_run(DECLARATION, now)
        if run is None:
            break
        assert run.cause not in causes
        causes.add(run.cause)
        now = carried_out(now, run)
    else:
        pytest.fail("the plan never ends")
    assert set(now.closed) <= now.featured


def carried_out(now: LifecycleState, run) -> LifecycleState:
    if run.job is Job.RETRAIN:
        usable = [key for key in now.matured if key in now.featured]
        training, _ = split_windows(DECLARATION, usable)
        return now.model_copy(
            update={
                "champion_version": "1",
                "trained_through": training[-1],
                "verdicts": now.verdicts | {run.cause},
                "scored": frozenset(),
            }
        )
    keys = {k for k in now.closed if run.first <= k <= run.last}
    update = {"featured": now.featured | keys, "settled": now.settled | keys}
    if now.champion_version:
        update["scored"] = now.scored | keys
        update["judged"] = now.judged | (keys & set(now.matured))
    return now.model_copy(update=update)


@given(count=st.integers(0, 12), exam=st.integers(1, 4), longest=st.none() | st.integers(3, 6))
@settings(max_examples=60, deadline=None)
def test_exam_and_training_never_share_a_window(count, exam, longest):
    declaration = ModelDeclaration.model_validate(
        MINIMAL
        | {"exam": {"windows": exam}, "training": {"min_windows": 3, "max_windows": longest}}
    )
    split = split_windows(declaration, list(MONTHS[:count]))
    if split is None:
        assert count < 3 + exam
        return
    training, exam_keys = split
    assert not set(training) & set(exam_keys)
    assert max(training) < min(exam_keys)
    assert len(exam_keys) == exam
    assert len(training) >= 3
    assert longest is None or len(training) <= longest


def test_the_flight_delay_folder_is_found():
    from aios_platform.components.model_lifecycle.discovery import DEFS

    assert (Path(DEFS) / "flight_delay").is_dir()
