"""A tiny code location: the platform's own sensors on a model whose state is written in a file.

The jobs do nothing but note that they ran. MLflow is a file with the alias in it.
"""

import json
import os
from pathlib import Path

import dagster as dg

from aios_platform.components.model_lifecycle import asking, liveness, state
from aios_platform.components.model_lifecycle.liveness import living_executor
from aios_platform.components.model_lifecycle.names import Names
from aios_platform.components.model_lifecycle.plan import Job, LifecycleState
from aios_platform.components.model_lifecycle.sensors import sensors_of
from aios_platform.database import Database
from aios_platform.declarations import parse
from aios_platform.registry import backend
from aios_platform.resources.stores import Artifacts, Ledger
from tests.e2e import small_flights

MODEL = "probe"
NOTHING = LifecycleState(
    closed=(), matured=(), featured=frozenset(), champion_version="1", scored=frozenset()
)


def folder() -> Path:
    """Where the test and the code server meet."""
    return Path(os.environ["PROBE_FOLDER"])


def names() -> Names:
    attributes = small_flights.attributes(name=MODEL)
    return Names(parse(attributes, small_flights.FOLDER / "defs.yaml"), small_flights.FOLDER)


def read_state(*where: object, patient: bool = False) -> LifecycleState:
    """The state that the test wrote, and what was really given up."""
    [opened] = [part for part in where if isinstance(part, Database)]
    trial = json.loads((folder() / "trial.json").read_text())
    if trial["point"]:
        # A tick that began before does not know that it is to die: the state is not for it.
        trial = json.loads((folder() / "tick.json").read_text())
    written = trial["state"]
    given_up = frozenset() if patient else state._given_up(opened, MODEL)
    return LifecycleState.model_validate(written).model_copy(update={"given_up": given_up})


class Aliases:
    """What the sensor needs of the MLflow registry, on a file."""

    def open(self) -> "Aliases":
        return self

    def champion_alias(self, model: str) -> str | None:
        return (folder() / "alias").read_text() or None

    def set_champion_alias(self, model: str, version: str) -> None:
        (folder() / "alias").write_text(version)


def job(name: Job) -> dg.JobDefinition:
    @dg.op(name=f"{name}_work")
    def work(context: dg.OpExecutionContext) -> None:
        with (folder() / "work.log").open("a") as log:
            log.write(f"{context.run.run_id}\n")
        if (folder() / "fail").exists():
            raise dg.Failure("told to fail")

    @dg.job(name=names().job(name), executor_def=living_executor, tags={"aios/model": MODEL})
    def working() -> None:
        work()

    return working


@dg.definitions
def defs() -> dg.Definitions:
    liveness.PULSE_SECONDS = liveness.SETTLE_SECONDS = 0.02
    asking.read_state = read_state
    backend.glance = lambda _, model, __: Aliases().champion_alias(model)
    jobs = [job(name) for name in Job]
    return dg.Definitions(
        jobs=jobs,
        sensors=sensors_of(names(), jobs),
        resources={"artifacts": Artifacts(), "ledger": Ledger(), "registry": Aliases()},
    )
