"""From batches to answers: everybody is answered, whatever fails beside the model."""

import asyncio
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from aios_platform.contracts.datasets import FeatureField, FeatureSchema, FieldKind
from aios_platform.contracts.rollouts import RolloutMode
from aios_platform.errors import DatabaseUnavailable, DeadlineExceeded
from aios_platform.inference.session import Session
from aios_platform.serving.answering import NoAnswer
from aios_platform.serving.features import FeatureBlock
from aios_platform.serving.problems import problem_of
from tests.served_models import FEATURES, ROW, network
from tests.unit.serving.deployments import (
    answered,
    deployment_of,
    trial_of,
    version_of,
    work_for,
)

CANARY = "Ada-Lovelace-1815"
STORED = FeatureSchema(
    fields=(
        *FEATURES.fields,
        FeatureField(name="speed", kind=FieldKind.NUMERICAL, origin="stored"),
    )
)
MODEL = network(STORED, seed=6)
ROWS = [{**ROW, "size": float(size)} for size in range(4)]
FLAGS = {"missing": 0, "stale": 1, "unreachable": 2}


def test_a_request_is_answered_even_if_it_cannot_be_recorded(store, caplog):
    def record(_):
        raise ValueError(CANARY)

    async def run():
        deployment = deployment_of(store, network(), record=record)
        told = []
        works = [work_for(deployment, [ROW], told.append) for _ in range(3)]
        await answered(deployment, works)
        return works, told

    works, told = asyncio.run(run())
    assert told == works
    assert all(work.error is None and len(work.probabilities) == 1 for work in works)
    assert "were not recorded: ValueError in" in caplog.text
    assert CANARY not in caplog.text


def test_one_caller_that_cannot_be_told_keeps_nobody_else_from_an_answer(store, caplog):
    def vanished(_):
        raise RuntimeError(CANARY)

    async def run():
        deployment = deployment_of(store, network())
        told = []
        works = [work_for(deployment, [ROW], done) for done in (told.append, vanished, told.append)]
        await answered(deployment, works)
        again = work_for(deployment, [ROW], told.append)
        await answered(deployment, [again])
        return works, told, again

    works, told, again = asyncio.run(run())
    assert told == [works[0], works[2], again]
    assert "Request r1 was not told its end: RuntimeError in" in caplog.text
    assert CANARY not in caplog.text


class Reader:
    """Reads a speed for every row; of some it is told that they are missing, say."""

    def __init__(self, *, fails=None, **flagged):
        self.plan = SimpleNamespace(views=(SimpleNamespace(ttl=None),), inputs=("id",), moment="at")
        self.reachable = True
        self._fails, self._flagged = fails, flagged

    async def read(self, rows, moments):
        if self._fails is not None:
            await self._fails()
        flags = {
            name: np.array([row[0] in self._flagged.get(name, ()) for row in rows])
            for name in FLAGS
        }
        speed = np.array([[row[0] + 0.5] for row in rows], np.float32)
        speed[np.any(list(flags.values()), axis=0)] = np.nan
        return FeatureBlock(
            matrix=speed, texts=(), event=np.array([[moments[0] - 60]] * len(rows)), **flags
        )

    async def close(self):
        pass


def expected(rows, speeds):
    table = pa.Table.from_pylist(
        [{**row, "speed": speed} for row, speed in zip(rows, speeds, strict=True)]
    )
    return Session(MODEL).predict(table).tolist()


def asked(store, reader, rows=ROWS, *, shadow=None, seconds=5.0, **serving):
    """A request per row, all in one batch."""

    async def run():
        recorded = []
        deployment = deployment_of(
            store, MODEL, reader=reader, features=STORED, record=recorded.append,
            pair=(shadow.append if shadow is not None else lambda _: None), **serving,
        )  # fmt: skip
        if shadow is not None:
            version = version_of(store, MODEL, deployment.declaration, "2", STORED)
            deployment.set_trial(trial_of(version, mode=RolloutMode.SHADOW))
        works = [work_for(deployment, [row], lambda _: None, seconds) for row in rows]
        await answered(deployment, works)
        await deployment.retire()
        if shadow is not None:
            await asyncio.to_thread(version.executor.shutdown)
        return works, recorded

    return asyncio.run(run())


def test_stored_features_come_after_those_of_the_request(store):
    works, [recorded] = asked(store, Reader())
    found = [float(work.probabilities[0]) for work in works]
    assert found == pytest.approx(expected(ROWS, [0.5, 1.5, 2.5, 3.5]), abs=1e-6)
    assert [float(work.ages[0]) for work in works] == pytest.approx([60.0] * 4, abs=1)
    assert recorded.matrix[:, 2].tolist() == [0.5, 1.5, 2.5, 3.5]


@pytest.mark.parametrize("flag", FLAGS)
def test_rows_without_a_feature_are_scored_refused_or_diverted_as_declared(store, flag):
    reader = Reader(**{flag: (1.0, 2.0)})
    works, _ = asked(store, reader, policy={flag: "default"}, safe_default=0.25)
    found = [float(work.probabilities[0]) for work in works]
    assert found == pytest.approx(expected(ROWS, [0.5, None, None, 3.5]), abs=1e-6)

    works, [recorded] = asked(store, reader, policy={flag: "refuse"}, safe_default=0.25)
    codes = [None if work.error is None else problem_of(work.error).code for work in works]
    assert codes == [None, "feature_unavailable", "feature_unavailable", None]
    assert recorded.rows == 2

    pairs = []
    works, [recorded] = asked(
        store, reader, shadow=pairs, policy={flag: "fallback"}, safe_default=0.25
    )
    assert [work.sources[0] for work in works] == ["full", "default", "default", "full"]
    assert [float(work.probabilities[0]) for work in works][1:3] == [0.25, 0.25]
    # The version was not asked for them: it did not fail, and there is nothing to compare.
    assert not any(work.failed for work in works)
    assert [pair.live for pair in pairs] == [
        pytest.approx(float(works[place].probabilities[0])) for place in (0, 3)
    ]


async def _away():
    raise DatabaseUnavailable("The store does not answer.")


async def _broken():
    raise ValueError(CANARY)


async def _silent():
    await asyncio.sleep(60)


@pytest.mark.parametrize("fails", [_away, _broken, _silent])
def test_a_store_that_does_not_answer_is_a_matter_of_the_policy(store, fails, caplog):
    reader = Reader(fails=fails)
    works, _ = asked(
        store, reader, seconds=0.2, policy={"unreachable": "default"}, safe_default=0.25
    )
    found = [float(work.probabilities[0]) for work in works]
    assert found == pytest.approx(expected(ROWS, [None] * 4), abs=1e-6)
    works, _ = asked(store, reader, seconds=0.2, safe_default=0.25)
    assert {work.sources[0] for work in works} == {"default"}
    works, _ = asked(store, reader, seconds=0.2)
    assert {type(work.error) for work in works} == {NoAnswer}
    assert CANARY not in caplog.text


def test_the_haste_of_one_is_no_failure_for_others_of_its_batch(store):
    async def run():
        async def slow():
            await asyncio.sleep(0.05)

        deployment = deployment_of(store, MODEL, reader=Reader(fails=slow), features=STORED)
        hasty = work_for(deployment, ROWS[:1], lambda _: None, seconds=0.01)
        calm = work_for(deployment, ROWS[1:2], lambda _: None)
        await answered(deployment, [hasty, calm])
        await deployment.retire()
        return hasty, calm

    hasty, calm = asyncio.run(run())
    assert isinstance(hasty.error, DeadlineExceeded)
    assert calm.error is None
    assert calm.sources == ["full"]
