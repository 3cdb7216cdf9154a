"""Training end to end on a small frame: result, determinism, faults."""

import errno
import gc
import os
import signal
import subprocess
import sys
import textwrap
import weakref
from pathlib import Path

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.dataset as pad
import pyarrow.parquet as pq
import pytest

from aios_platform.errors import TrainingError
from aios_platform.training.split import split_windows
from aios_platform.training.trainer import train
from tests.unit.training.conftest import WINDOWS


def score(model, frame):
    session = onnxruntime.InferenceSession(model.onnx)
    feeds = {
        name: frame[name].cast(pa.float32()).to_numpy()[:, None]
        for name in ("distance", "delay", "constant", "absent")
    }
    feeds["carrier"] = np.array(frame["carrier"].fill_null("").to_pylist(), dtype=object)[:, None]
    return session.run(["probability"], feeds)[0]


@pytest.fixture(scope="module")
def trained(frame, schema, tmp_path_factory):
    from aios_platform.contracts.training import Training

    training = Training(
        hidden=(16, 8), epochs=3, batch_size=128, learning_rate=0.01, accelerator="cpu"
    )
    reports = []
    folder = tmp_path_factory.mktemp("trained")
    before = Path.cwd(), sorted(Path.cwd().iterdir())
    model = train(training, schema, frame, label="is_late", workdir=folder, on_epoch=reports.append)
    assert (Path.cwd(), sorted(Path.cwd().iterdir())) == before, "no litter beside the checkpoints"
    return model, reports, folder, training


def test_a_model_that_ranks_and_is_calibrated_comes_out(trained, frame):
    model, reports, _, _ = trained
    assert model.metrics["roc_auc"] > 0.85
    assert model.metrics["ece"] < 0.1
    assert model.parity <= 1e-5
    assert model.train_windows == WINDOWS[:-1]
    assert model.validation_windows == WINDOWS[-1:]
    assert model.rows == frame.num_rows - frame["is_late"].null_count
    assert tuple(reports) == model.epochs
    assert [epoch.epoch for epoch in reports] == [0, 1, 2]
    assert not model.resumed


def test_the_model_takes_raw_rows_with_missing_and_unseen_values(trained, frame):
    model = trained[0]
    probabilities = score(model, frame)
    assert probabilities.shape == (frame.num_rows,)
    assert probabilities.dtype == np.float32
    assert ((probabilities > 0) & (probabilities < 1)).all()
    one = frame.slice(0, 1)
    odd = [
        one.set_column(6, "carrier", pa.array([value], pa.string()))
        for value in ("never seen", "ZZ", "", None)
    ]
    assert len({float(score(model, row)[0]) for row in odd}) == 1, "all are the unknown bucket"


def test_the_same_call_gives_the_same_bytes_and_leaves_the_process_as_it_was(
    trained, frame, schema, tmp_path
):
    import torch

    model, _, _, training = trained
    torch.manual_seed(11)
    state = torch.random.get_rng_state()
    again = train(training, schema, frame, label="is_late", workdir=tmp_path)
    assert again.digest == model.digest
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_set_that_lies_in_files_gives_the_same_bytes(trained, frame, schema, tmp_path):
    model, _, _, training = trained
    for number, start in enumerate(range(0, frame.num_rows, 700)):
        part = frame.slice(start, 700)
        pq.write_table(part, tmp_path / f"{number}.parquet", row_group_size=300)
    files = [str(path) for path in sorted(tmp_path.glob("*.parquet"))]
    again = train(training, schema, pad.dataset(files), label="is_late", workdir=tmp_path / "work")
    assert again.digest == model.digest
    assert (again.rows, again.parity) == (model.rows, model.parity)
    assert again.metrics == model.metrics


@pytest.fixture
def no_memory(monkeypatch):
    from aios_platform.settings import Settings
    from aios_platform.training import allocation

    monkeypatch.setattr(allocation, "settings", lambda: Settings(training_memory_mib=0))


def test_rows_beyond_the_memory_allowed_lie_in_a_file_and_give_the_same_bytes(
    trained, frame, schema, tmp_path, no_memory
):
    model, _, _, training = trained
    mapped = []

    def look(_):
        maps = Path("/proc/self/maps").read_text().splitlines()
        mapped.extend(line for line in maps if str(tmp_path) in line and "(deleted)" in line)

    again = train(
        training, schema, frame, label="is_late", workdir=tmp_path / "work", on_epoch=look
    )
    assert again.digest == model.digest
    assert mapped, "nothing lay in a file"
    assert not [path for path in tmp_path.rglob("*") if path.suffix not in (".pt", "")]


def test_a_disk_without_room_for_the_rows_is_an_error(
    frame, schema, training, tmp_path, monkeypatch, no_memory
):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(TrainingError, match="No space left on device") as told:
        train(training(), schema, frame, label="is_late", workdir=tmp_path)
    assert "AIOS_TRAINING_MEMORY_MIB" in told.value.remedy


def test_nothing_is_fitted_on_validation_rows(trained, frame, schema):
    from aios_platform.training.encoding import fit_encoding

    split = split_windows(frame, "is_late", "window", 1)
    last = frame["window"].to_numpy(zero_copy_only=False) == WINDOWS[-1]
    spoiled = frame.set_column(
        2, "distance", pa.array(np.where(last, 1e9, frame["distance"].to_numpy()))
    )
    respoiled = split_windows(spoiled, "is_late", "window", 1)
    first, second = (fit_encoding(s.train, schema) for s in (split, respoiled))
    assert all(map(np.array_equal, first.knots, second.knots))
    assert np.array_equal(first.center, second.center)


def test_ensemble_averages_its_members(frame, schema, training, tmp_path):
    model = train(training(members=2, epochs=1), schema, frame, label="is_late", workdir=tmp_path)
    assert {epoch.member for epoch in model.epochs} == {0, 1}
    assert model.epochs[0].train_loss != model.epochs[1].train_loss


def test_patience_stops_early(frame, schema, training, tmp_path):
    options = training(epochs=40, patience=1, learning_rate=0.05)
    model = train(options, schema, frame, label="is_late", workdir=tmp_path)
    assert len(model.epochs) < 40


def test_a_loss_that_is_not_finite_stops_and_leaves_no_model(frame, schema, training, tmp_path):
    with pytest.raises(TrainingError, match="not finite"):
        train(training(learning_rate=1e30), schema, frame, label="is_late", workdir=tmp_path)
    assert not list(tmp_path.rglob("*.pt"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop(["is_late"]), "lacks the column 'is_late'"),
        (lambda f: f.drop(["window"]), "lacks the column 'window'"),
        (lambda f: f.slice(0, 500), "none is left to train on"),
        (lambda f: f.slice(0, 0), "none is left to train on"),
        (
            lambda f: f.set_column(7, "is_late", pa.repeat(pa.scalar(True), f.num_rows)),
            "both classes are needed",
        ),
        (
            lambda f: f.set_column(7, "is_late", pa.nulls(f.num_rows, pa.bool_())),
            "none is left to train on",
        ),
        (
            lambda f: f.set_column(7, "is_late", pa.repeat(pa.scalar(1.0), f.num_rows)),
            "expected bool",
        ),
        (lambda f: f.drop(["delay"]), "lacks the column 'delay'"),
    ],
)
def test_a_frame_that_cannot_be_trained_on_is_refused(
    frame, schema, training, tmp_path, change, message
):
    with pytest.raises(TrainingError, match=message):
        train(training(), schema, change(frame), label="is_late", workdir=tmp_path)


KILLED = """
    import os, signal, sys
    from pathlib import Path
    from aios_platform.contracts.training import Training
    from aios_platform.training.trainer import train
    from tests.unit.training.conftest import make_frame, schema_of

    def kill(epoch):
        if epoch.epoch == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    train(
        Training.model_validate_json(sys.argv[2]),
        schema_of(("distance", "delay", "constant", "absent"), ("carrier",)),
        make_frame(), label="is_late", workdir=Path(sys.argv[1]), on_epoch=kill,
    )
"""


def test_a_killed_training_goes_on_where_it_was_and_ends_with_the_same_bytes(
    trained, frame, schema, tmp_path
):
    model, _, _, training = trained
    killed = subprocess.run(
        [
            sys.executable,
            "-c",
            textwrap.dedent(KILLED),
            str(tmp_path),
            training.model_dump_json(),
        ],
        cwd=Path(__file__).parents[3],
        env=dict(os.environ),
        timeout=120,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    assert list(tmp_path.rglob("last.ckpt"))

    seen = []
    resumed = train(
        training, schema, frame, label="is_late", workdir=tmp_path, on_epoch=seen.append
    )
    assert resumed.resumed
    assert [epoch.epoch for epoch in seen] == [2], "the first two epochs are not done again"
    assert len(resumed.epochs) == 3
    assert resumed.digest == model.digest

    finished = train(
        training, schema, frame, label="is_late", workdir=tmp_path, on_epoch=seen.append
    )
    assert len(seen) == 1, "a finished training that was not yet registered is not done again"
    assert finished.digest == model.digest


class Payload:
    def __reduce__(self):
        return (os.mkdir, (os.environ["AIOS_HOME"] + "/payload-ran",))


@pytest.mark.parametrize("damage", ["truncated", "hostile"])
def test_a_damaged_or_hostile_checkpoint_is_not_taken_up(
    trained, frame, schema, tmp_path, damage, caplog
):
    import pickle
    import shutil

    model, _, folder, training = trained
    shutil.copytree(folder, tmp_path / "copy")
    (finished,) = (tmp_path / "copy").rglob("member_0.pt")
    content = finished.read_bytes()
    hostile = pickle.dumps(Payload())
    finished.write_bytes(content[: len(content) // 2] if damage == "truncated" else hostile)

    again = train(training, schema, frame, label="is_late", workdir=tmp_path / "copy")

    assert not Path(os.environ["AIOS_HOME"], "payload-ran").exists()
    assert "cannot be read" in caplog.text
    assert again.digest == model.digest


def plan_of(frame, schema, options, folder):
    from aios_platform.contracts.answers import AnswerSchema
    from aios_platform.training.encoder import InputEncoder
    from aios_platform.training.encoding import fit_encoding, raw_inputs
    from aios_platform.training.fit import Plan
    from aios_platform.training.objective import Objective

    split = split_windows(frame, "is_late", "window", 1)
    objective = Objective(AnswerSchema())
    encoding = fit_encoding(split.train, schema)
    encoder = InputEncoder(encoding)
    train_rows, validation_rows = (
        (
            *encoder.encode(raw_inputs(table, schema, encoding)),
            objective.targets(objective.truth(table["is_late"])),
        )
        for side in (split.train, split.validation)
        for table in [side.select([*schema.names, "is_late"])]
    )
    return Plan(
        training=options,
        objective=objective,
        inputs=encoder.inputs,
        train=train_rows,
        validation=validation_rows,
        folder=folder,
        on_epoch=lambda _: None,
    )


def test_a_trained_member_keeps_no_rows(frame, schema, training, tmp_path):
    from aios_platform.training.fit import fit_member

    plan = plan_of(frame, schema, training(epochs=1), tmp_path)
    rows = weakref.ref(plan.train[0])
    gc.disable()
    try:
        member = fit_member(plan, 0)
        del plan
        assert rows() is None
    finally:
        gc.enable()
    assert len(member.epochs) == 1


def test_lightning_trains_the_same_weights_as_a_plain_loop(frame, schema, training, tmp_path):
    import torch

    from aios_platform.training.data import SlicedBatches, stream_seed
    from aios_platform.training.fit import fit_member
    from aios_platform.training.module import one_cycle

    options = training(epochs=2, patience=5)
    plan = plan_of(frame, schema, options, tmp_path)
    member = fit_member(plan, 0)

    with torch.random.fork_rng():
        network = plan.network(0)
        seed = stream_seed(options.seed, 0)
        batches = SlicedBatches(plan.train, plan.batch_size, seed=seed)
        optimizer = torch.optim.AdamW(
            network.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay
        )
        schedule = one_cycle(optimizer, options.epochs * len(batches))
        weights = []
        for epoch in range(options.epochs):
            torch.manual_seed(stream_seed(seed, epoch))
            batches.set_epoch(epoch)
            network.train()
            for encoded, codes, labels in batches:
                loss = torch.nn.functional.binary_cross_entropy_with_logits(
                    network(encoded, codes)[:, 0], labels
                )
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
            weights.append({name: w.clone() for name, w in network.state_dict().items()})

    for name, weight in member.network.state_dict().items():
        assert torch.equal(weight, weights[member.best_epoch][name]), name
