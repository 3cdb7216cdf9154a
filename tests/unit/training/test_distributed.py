"""Two processes on the CPU train one network."""

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from aios_platform.errors import TrainingError
from aios_platform.training.trainer import train


@pytest.fixture(scope="module")
def pair(frame, schema, tmp_path_factory):
    from aios_platform.contracts.training import Training

    declared = Training(
        hidden=(16, 8), dropout=0.0, epochs=3, batch_size=128, learning_rate=0.01, accelerator="cpu"
    )
    seen = []
    found = [
        train(
            declared.model_copy(update={"devices": devices}),
            schema,
            frame,
            label="is_late",
            workdir=tmp_path_factory.mktemp("devices"),
            on_epoch=seen.append,
        )
        for devices in (1, 2)
    ]
    return [*found, seen]


def test_two_processes_learn_what_one_does(pair):
    alone, together, seen = pair
    assert [epoch.epoch for epoch in seen] == [0, 1, 2] * 2
    for one, two in zip(alone.epochs, together.epochs, strict=True):
        # Without dropout only the order of sums and an odd last batch differ.
        assert two.validation["log_loss"] == pytest.approx(one.validation["log_loss"], abs=0.01)
    assert together.metrics["roc_auc"] == pytest.approx(alone.metrics["roc_auc"], abs=0.01)
    assert together.digest != alone.digest


KILLED = """
    import sys
    from pathlib import Path
    from aios_platform.contracts.training import Training
    from aios_platform.training.trainer import train
    from tests.unit.training.conftest import make_frame, schema_of

    if __name__ == "__main__":
        train(
            Training(hidden=(16, 8), epochs=500, patience=500, batch_size=128, devices=2,
                     accelerator="cpu"),
            schema_of(("distance", "delay", "constant", "absent"), ("carrier",)),
            make_frame(), label="is_late", workdir=Path(sys.argv[1]),
            on_epoch=lambda epoch: print(epoch.epoch, flush=True),
        )
"""


def test_no_process_outlives_a_killed_training(tmp_path):
    script = tmp_path / "killed.py"
    script.write_text(textwrap.dedent(KILLED))
    parent = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)],
        cwd=Path(__file__).parents[3],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
        stdout=subprocess.PIPE,
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"0\n"
    children = psutil.Process(parent.pid).children(recursive=True)
    assert len(children) >= 2
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 30
    while any(child.is_running() and child.status() != "zombie" for child in children):
        assert time.monotonic() < deadline, "a process trains on beside the next attempt"
        time.sleep(0.1)


def test_a_failure_in_one_process_ends_all(frame, schema, training, tmp_path):
    before = multiprocessing.active_children()
    with pytest.raises(TrainingError, match="not finite"):
        train(
            training(devices=2, learning_rate=1e30), schema, frame, label="is_late",
            workdir=tmp_path,
        )  # fmt: skip
    assert multiprocessing.active_children() == before
