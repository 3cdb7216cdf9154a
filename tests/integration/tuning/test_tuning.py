"""A declared search on a pinned training set: real trials, Optuna's tables, MLflow's runs."""

import json
import math
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from aios_platform.artifacts import ArtifactStore
from aios_platform.cli import tuning
from aios_platform.cli.main import app
from aios_platform.components.model_lifecycle import candidates
from aios_platform.components.model_lifecycle.explanation import explain
from aios_platform.components.model_lifecycle.names import Names
from aios_platform.components.model_lifecycle.tuning import best_of, run_search
from aios_platform.contracts.datasets import TrainingSet
from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.contracts.readiness import How
from aios_platform.contracts.search import with_values
from aios_platform.errors import LifecycleError
from aios_platform.features.leakage import LeakageReport
from aios_platform.ledger.entries import entries
from aios_platform.readiness.collecting import score_of
from aios_platform.resources.stores import Stores
from aios_platform.settings import PROJECT_ROOT, settings
from aios_platform.training.trainer import train
from tests.unit.contracts.test_declaration import MINIMAL
from tests.unit.training.conftest import WINDOWS, make_frame, schema_of

pytestmark = [
    pytest.mark.postgres,
    # Dagster's resources, on a Pydantic that is newer than they are.
    pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecatedSince20"),
]

SCHEMA = schema_of(("distance", "delay"), ("carrier",))
SPACE = {
    "learning_rate": {"low": 1e-5, "high": 0.1, "log": True},
    "hidden": {"choices": [[8], [16, 8]]},
    "batch_size": {"low": 64, "high": 256},
}
TRAINING = {
    "hidden": [8], "epochs": 3, "batch_size": 128, "learning_rate": 0.01, "accelerator": "cpu",
    "members": 2,
}  # fmt: skip


def declared(space=SPACE, **search) -> Names:
    """A model of its own, so that its search is."""
    wanted = {"trials": 6, "startup_trials": 2, "space": space} | search
    content = MINIMAL | {
        "name": f"m_{uuid.uuid4().hex[:8]}",
        "label": MINIMAL["label"] | {"column": "is_late"},
        "training": TRAINING,
        "search": wanted,
    }
    table = dict(MINIMAL["source"]["tables"]["toys"])
    table["columns"] = table["columns"] | {"is_late": {"type": "bool", "nullable": True}}
    content["source"] = MINIMAL["source"] | {"tables": {"toys": table}}
    return Names(ModelDeclaration.model_validate(content), Path("unused"))


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> Stores:
    return Stores(ArtifactStore(str(tmp_path_factory.mktemp("artifacts"))))


@pytest.fixture(scope="module")
def record(stores) -> TrainingSet:
    """Four windows, of which the last is the exam; its file is gone, since nobody may read it."""
    frame = make_frame(rows=300)
    versions = [
        stores.artifacts.write("toy/training_set", key, frame.slice(300 * place, 300))
        for place, key in enumerate(WINDOWS)
    ]
    Path(versions[-1].uri).unlink()
    return TrainingSet(
        frames=tuple(versions[:-1]), exam=tuple(versions[-1:]), features=SCHEMA,
        service_digest="5" * 64, as_of="2024-06-01T00:00:00+00:00", cells_replayed=1,
    )  # fmt: skip


@pytest.fixture(scope="module")
def searched(stores, record):
    """A search that was never disturbed, and its results after each trial."""
    names = declared()
    return names, list(run_search(names, record, stores))


def rows_of(stores, names):
    return entries(stores.database, subject=names.model, kind="search")


def runs_of(stores, names):
    client = stores.registry._client
    experiment = client.get_experiment_by_name(names.model)
    return client.search_runs([experiment.experiment_id])


def test_the_declared_values_are_tried_first_and_come_to_what_training_comes_to(
    searched, record, stores, tmp_path
):
    names, found = searched
    first = found[0][0]
    assert first.values == {"learning_rate": 0.01, "hidden": [8], "batch_size": 128}
    trained = train(
        names.declaration.training, SCHEMA, stores.artifacts.scan(record.frames),
        label="is_late", workdir=tmp_path,
    )  # fmt: skip
    losses = [epoch.validation["log_loss"] for epoch in trained.epochs if epoch.member == 0]
    assert list(first.losses.values()) == losses
    assert first.loss == min(losses)


def test_every_trial_has_values_of_the_space_and_the_best_is_the_least_loss(searched):
    names, found = searched
    results = found[-1]
    assert [len(each) for each in found] == [1, 2, 3, 4, 5, 6, 6]
    assert [result.number for result in results] == list(range(6))
    for result in results:
        assert all(names.declaration.search.space[n].holds(v) for n, v in result.values.items())
        with_values(names.declaration.training, result.values)
    complete = [result for result in results if result.state == "complete"]
    assert best_of(results).loss == min(result.loss for result in complete) <= results[0].loss


def test_a_trial_that_is_worse_than_the_median_ends_early(searched, stores, record):
    names = declared({"learning_rate": {"choices": [0.01, 1e-7]}}, startup_trials=1)
    results = list(run_search(names, record, stores))[-1]
    pruned = [result for result in results if result.state == "pruned"]
    assert pruned
    assert all(result.values == {"learning_rate": 1e-7} for result in pruned)
    assert all(len(result.losses) < 3 for result in pruned)
    never = declared({"learning_rate": {"choices": [0.01, 1e-7]}}, startup_trials=1, pruner="none")
    results = list(run_search(never, record, stores))[-1]
    assert {result.state for result in results} == {"complete"}
    assert {len(result.losses) for result in results} == {3}


def test_trials_are_nested_runs_of_the_model(searched, stores):
    names, found = searched
    runs = runs_of(stores, names)
    (parent,) = (run for run in runs if run.data.tags["aios.trial"] == "parent")
    children = {run.data.tags["aios.trial"]: run for run in runs if run is not parent}
    assert set(children) == {str(number) for number in range(6)}
    assert {run.data.tags["mlflow.parentRunId"] for run in children.values()} == {
        parent.info.run_id
    }
    assert {run.info.status for run in runs} == {"FINISHED"}
    for result in found[-1]:
        run = children[str(result.number)]
        assert run.data.params == {name: str(value) for name, value in result.values.items()}
        assert run.data.tags["aios.trial_state"] == result.state
        assert run.data.metrics["best_held_out_loss"] == pytest.approx(min(result.losses.values()))
    best = best_of(found[-1])
    assert parent.data.params["best.hidden"] == str(best.values["hidden"])
    assert parent.data.metrics["best_held_out_loss"] == pytest.approx(best.loss)


def test_the_same_call_again_tries_nothing_and_more_trials_go_on(searched, stores, record):
    names, found = searched
    assert list(run_search(names, record, stores)) == [found[-1]]
    (row,) = rows_of(stores, names)
    assert row.payload["trials"] == 6
    assert row.payload["best"] == dict(best_of(found[-1]).values)
    assert row.payload["declared_loss"] == found[0][0].loss
    said = explain(row)
    assert "6 trials" in said
    assert "hidden" in said
    assert len(runs_of(stores, names)) == 7

    wanted = names.declaration.search.model_copy(update={"trials": 7})
    more = Names(names.declaration.model_copy(update={"search": wanted}), names.folder)
    results = list(run_search(more, record, stores))
    assert [len(each) for each in results] == [7, 7]
    assert results[-1][:6] == found[-1]
    assert [row.payload["trials"] for row in rows_of(stores, names)] == [7, 6]


def test_other_rows_or_another_space_are_another_search(searched, stores, record):
    names, found = searched
    fewer = record.model_copy(update={"frames": record.frames[1:]})
    one = names.declaration.search.model_copy(update={"trials": 2})
    short = Names(names.declaration.model_copy(update={"search": one}), names.folder)
    results = next(run_search(short, fewer, stores))
    assert [result.number for result in results] == [0]
    assert results[0].loss != found[-1][0].loss


def test_values_that_diverge_end_their_trial_and_not_the_search(stores, record):
    names = declared({"learning_rate": {"choices": [0.01, 1e30]}}, trials=4, startup_trials=4)
    results = list(run_search(names, record, stores))[-1]
    diverged = [result for result in results if result.state == "diverged"]
    assert diverged
    assert all(result.values == {"learning_rate": 1e30} for result in diverged)
    assert all(math.isinf(result.loss) for result in diverged)
    assert best_of(results).values == {"learning_rate": 0.01}
    folder = settings().home_path / "training" / names.model
    assert [path for path in folder.rglob("*") if path.is_file()] == [], "checkpoints are left"


KILLED = """
import json, os, signal, sys
from pathlib import Path
from aios_platform.artifacts import ArtifactStore
from aios_platform.components.model_lifecycle.names import Names
from aios_platform.components.model_lifecycle.tuning import run_search
from aios_platform.contracts.datasets import TrainingSet
from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.readiness.collecting import score_of
from aios_platform.resources.stores import Stores
from aios_platform.tuning.study import OpenTrial
said = json.load(sys.stdin)
place, when = said["kill"]
report = OpenTrial.report
def dying(self, epoch, loss):
    worth = report(self, epoch, loss)
    if self.number == place and epoch == when:
        os.kill(os.getpid(), signal.SIGKILL)
    return worth
OpenTrial.report = dying
names = Names(ModelDeclaration.model_validate(said["declaration"]), Path("unused"))
record = TrainingSet.model_validate(said["record"])
for _ in run_search(names, record, Stores(ArtifactStore(said["root"]))):
    pass
"""


def killed(names, record, stores, kill):
    said = {
        "declaration": names.declaration.model_dump(mode="json"),
        "record": record.model_dump(mode="json"), "root": stores.artifacts.root, "kill": kill,
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KILLED],
        input=json.dumps(said), text=True, capture_output=True, cwd=PROJECT_ROOT, timeout=240,
        env=child_environment(stores),
    )  # fmt: skip


def child_environment(stores):
    from aios_platform.settings import child_environment

    return child_environment({"AIOS_DATABASE_URL": stores.database.server_url})


def test_a_search_that_was_killed_goes_on_as_if_it_had_not_been(searched, stores, record):
    _, found = searched
    names = declared()
    place = next(r.number for r in found[-1] if r.number >= 2 and len(r.losses) == 3)
    done = killed(names, record, stores, (place, 1))
    assert done.returncode == -9, done.stderr
    with stores.database.begin() as connection:
        states = connection.execute(
            text(
                "SELECT t.state FROM optuna.trials t JOIN optuna.studies s USING (study_id) JOIN "
                "optuna.study_user_attributes a USING (study_id) WHERE a.value_json = :model "
                "ORDER BY t.number"
            ),
            {"model": json.dumps(names.model)},
        ).scalars()
        assert [str(state) for state in states][place:] == ["RUNNING"]
    results = list(run_search(names, record, stores))
    assert [len(each) for each in results] == [*range(place + 1, 7), 6]
    for ours, theirs in zip(results[-1], found[-1], strict=True):
        assert (ours.values, ours.state, ours.losses) == (
            theirs.values, theirs.state, theirs.losses,
        )  # fmt: skip
    assert len(runs_of(stores, names)) == 7


def test_a_trial_that_kills_every_attempt_is_given_up(stores, record):
    from aios_platform.tuning.study import MOST_ATTEMPTS, Study

    names = declared(trials=3)
    search, training = names.declaration.search, names.declaration.training
    for _ in range(MOST_ATTEMPTS):
        study = Study(stores.database, f"given-up-{names.model}", names.model, search, training)
        assert study.take().number == 0
    trial = study.take()
    assert trial.number == 1
    (given_up,) = study.results()
    assert (given_up.state, given_up.loss) == ("fail", math.inf)


def test_two_searches_of_a_model_do_not_meet(stores, record):
    names = declared()
    with stores.database.exclusive(f"tune {names.model}") as lock:
        assert lock.held
        with pytest.raises(LifecycleError, match="Another `aios tune"):
            next(run_search(names, record, stores))


@pytest.fixture
def command(monkeypatch, stores, record):
    """`aios tune` of a model whose training set is pinned already."""

    def call(names, *options):
        monkeypatch.setattr(tuning, "names_of", lambda model: names)
        report = LeakageReport(
            model=names.model,
            training_set=record.digest,
            moments=(),
            rows_replayed=0,
            cells_compared=0,
            nothing_joined=True,
            single_feature_auc={},
            leaks=(),
        )
        monkeypatch.setattr(candidates, "pin_training_set", lambda *_: (record, report))
        monkeypatch.setattr("aios_platform.resources.stores.Stores", lambda: stores)
        return CliRunner().invoke(app, ["tune", names.model, *options])

    return call


def test_the_command_shows_each_trial_and_what_to_declare(command, searched, stores, record):
    names, _ = searched
    (results,) = run_search(names, record, stores)
    best = best_of(results)
    shown = command(names)
    assert shown.exit_code == 0, shown.output
    lines = [line for line in shown.output.splitlines() if line.startswith("trial ")]
    assert [int(line.split()[1]) for line in lines] == [result.number for result in results]
    assert "6 trials on 2024-01 to 2024-03, of which the last 1 are held out" in shown.output
    assert f"Trial {best.number} is the best" in shown.output
    assert f"learning_rate: {best.values['learning_rate']}" in shown.output
    said = json.loads(command(names, "--json").output)
    assert said["best"] == {"trial": best.number, "loss": best.loss, "values": dict(best.values)}


def test_a_model_that_declares_no_search_is_told_how_to(command, searched):
    names, _ = searched
    silent = Names(names.declaration.model_copy(update={"search": None}), names.folder)
    shown = command(silent)
    assert isinstance(shown.exception, LifecycleError)
    assert "search.space" in shown.exception.remedy


def test_a_declaration_with_the_best_values_counts_as_tuned(searched, stores):
    names, _ = searched
    declaration = names.declaration
    best = with_values(declaration.training, rows_of(stores, names)[0].payload["best"])
    tuned = Names(declaration.model_copy(update={"training": best}), names.folder)
    assert found_of(names, stores).trace is None
    trace = found_of(tuned, stores).trace
    assert trace.how is How.MANUAL
    assert "best of" in trace.says


def found_of(names, stores):
    (found,) = (f for f in score_of(names, stores).findings if f.test.name == "model_3")
    return found
