"""From batches to answers: everybody is answered, whatever fails beside the model."""

import asyncio

from tests.served_models import ROW, network
from tests.unit.serving.deployments import answered, deployment_of, work_for

CANARY = "Ada-Lovelace-1815"


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
