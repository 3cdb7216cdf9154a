"""The yardstick's trainings in a process of their own."""

import multiprocessing
from datetime import UTC, datetime

import pyarrow as pa
import pytest

from aios_platform.artifacts import ArtifactStore
from aios_platform.contracts.datasets import TrainingSet
from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.errors import ArtifactMissing, LifecycleError
from aios_platform.replay.progress import AskedTraining, EveryTraining, FailedTraining
from aios_platform.replay.yardstick_trainer import YardstickTrainer, keep_training_set
from aios_platform.settings import settings
from aios_platform.training.trainer import train
from tests.unit.training.conftest import WINDOWS, make_frame, schema_of

SCHEMA = schema_of(("distance", "delay"), ("carrier",))


@pytest.fixture
def declaration() -> ModelDeclaration:
    columns = {
        "row": {"type": "string"},
        "at": {"type": "timestamp"},
        "is_late": {"type": "bool", "nullable": True, "known_at": "at"},
    }
    return ModelDeclaration.model_validate(
        {
            "name": "late",
            "owner": "team:tests",
            "windows": {"every": "month", "start": "2024-01"},
            "source": {
                "entrypoint": "a:b",
                "tables": {"rows": {"columns": columns, "row_id": ["row"], "timestamp": "at"}},
                "rows": "rows",
                "prediction_time": "at",
            },
            "features": {"service": "v1"},
            "label": {"column": "is_late", "known_at": "at"},
            "training": {"hidden": [8], "epochs": 1, "batch_size": 256, "accelerator": "cpu"},
        }
    )


@pytest.fixture
def record(store: ArtifactStore) -> TrainingSet:
    return kept(store, make_frame())


def kept(store: ArtifactStore, frame: pa.Table) -> TrainingSet:
    rows = len(frame) // len(WINDOWS)
    frames = (
        store.write("late/training_set", key, frame.slice(place * rows, rows))
        for place, key in enumerate(WINDOWS)
    )
    made = TrainingSet(
        frames=tuple(frames),
        exam=(),
        features=SCHEMA,
        service_digest="0" * 64,
        as_of="2024-05-03",
        cells_replayed=0,
    )
    keep_training_set(store, "late", made)
    return made


def asked(digest: str, seconds: float = 0.0) -> AskedTraining:
    return AskedTraining(
        window="2024-04",
        clock=datetime(2024, 5, 3, tzinfo=UTC),
        trained_through="2024-04",
        training_set_digest=digest,
        seconds=seconds,
    )


def test_it_gives_the_bytes_that_this_process_gives_and_tells_what_failed(
    declaration, store, record, tmp_path
):
    with YardstickTrainer(declaration, store) as trainer:
        assert list(trainer.trained(wait=True)) == [], "nothing was asked for"
        trainer.ask(asked(record.digest, seconds=100.0))
        trainer.ask(asked("f" * 64))
        here = train(
            declaration.training, SCHEMA, store.scan(record.frames), label="is_late",
            workdir=tmp_path / "here",
        )  # fmt: skip
        answers = trainer.trained(wait=True)
        found = next(answers)
        with pytest.raises(ArtifactMissing, match="yardstick ffffffffffff"):
            next(answers)
    assert found.model_digest == here.digest
    assert store.get(here.digest, ".onnx") == here.onnx
    assert not found.shared
    assert found.seconds > 100
    assert multiprocessing.active_children() == []
    folder = settings().home_path / "training" / "late"
    assert list(folder.iterdir()) == [], "no checkpoint is left of what is done"


def test_a_training_that_gives_no_model_stops_nothing(declaration, store, record):
    frame = make_frame()
    held_out = len(frame) - len(frame) // len(WINDOWS)
    labels = frame["is_late"].to_pylist()
    labels[held_out:] = [False] * (len(frame) - held_out)
    place = frame.schema.get_field_index("is_late")
    one_class = kept(store, frame.set_column(place, "is_late", pa.array(labels)))
    with YardstickTrainer(declaration, store) as trainer:
        trainer.ask(asked(one_class.digest))
        trainer.ask(asked(record.digest))
        failed, trained = trainer.trained(wait=True)
    assert isinstance(failed, FailedTraining)
    assert "both classes are needed" in failed.reason
    assert failed.training_set_digest == one_class.digest
    assert isinstance(trained, EveryTraining)
    assert trained.training_set_digest == record.digest


def test_a_killed_process_is_told_of(declaration, store, record):
    with YardstickTrainer(declaration, store) as trainer:
        trainer.ask(asked(record.digest))
        [process] = multiprocessing.active_children()
        process.kill()
        with pytest.raises(LifecycleError, match="of late ended with -9"):
            list(trainer.trained(wait=True))


def test_on_ray_they_are_the_same_bytes_in_the_order_they_were_asked_for(
    declaration, store, record, tmp_path
):
    """In a process of its own: Ray leaves warnings behind."""
    import json
    import subprocess
    import sys

    pytest.importorskip("ray")
    script = (
        "import json, sys\n"
        "from datetime import UTC, datetime\n"
        "from aios_platform.artifacts import ArtifactStore\n"
        "from aios_platform.contracts.declaration import ModelDeclaration\n"
        "from aios_platform.errors import ArtifactMissing\n"
        "from aios_platform.replay.progress import AskedTraining\n"
        "from aios_platform.replay.ray_trainer import RayYardstickTrainer\n"
        "given = json.load(sys.stdin)\n"
        "declaration = ModelDeclaration.model_validate(given['declaration'])\n"
        "root = given['root']\n"
        "with RayYardstickTrainer(declaration, ArtifactStore(root), root, 'local') as trainer:\n"
        "    for each in given['asked']:\n"
        "        trainer.ask(AskedTraining.model_validate(each))\n"
        "    answers = trainer.trained(wait=True)\n"
        "    print(next(answers).model_digest)\n"
        "    try:\n"
        "        next(answers)\n"
        "    except ArtifactMissing as error:\n"
        "        print(error.what)\n"
    )
    given = {
        "declaration": declaration.model_dump(mode="json"),
        "root": store.root,
        "asked": [asked(d).model_dump(mode="json") for d in (record.digest, "f" * 64)],
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        input=json.dumps(given), capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    here = train(
        declaration.training, SCHEMA, store.scan(record.frames), label="is_late",
        workdir=tmp_path / "here",
    )  # fmt: skip
    digest, failed = done.stdout.splitlines()[-2:]
    assert digest == here.digest
    assert store.get(digest, ".onnx") == here.onnx
    assert "yardstick ffffffffffff" in failed
