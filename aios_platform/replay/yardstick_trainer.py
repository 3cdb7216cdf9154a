"""Trains the yardstick in a process of its own, beside the replay.

Nothing waits for a yardstick until the end, and most of a replay's work keeps one core busy.
"""

import multiprocessing
import shutil
import signal
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self

from aios_platform import telemetry
from aios_platform.artifacts import ArtifactStore
from aios_platform.contracts.datasets import TrainingSet
from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.errors import AiosError, ArtifactMissing, LifecycleError, TrainingError
from aios_platform.preloading import collect_rarely
from aios_platform.replay.progress import AskedTraining, EveryTraining, FailedTraining
from aios_platform.settings import settings


def keep_training_set(store: ArtifactStore, model: str, record: TrainingSet) -> None:
    """Keep what a yardstick is to be trained on, under its digest."""
    store.write_named(_record_name(model, record.digest), record.model_dump_json().encode())


class YardstickTrainer:
    """Trains what it is asked to, in that order, in one process that begins with the first.

    A context manager: at its end the process is ended, whatever it does. A training that was
    ended, or killed with everything else, goes on where it was when it is asked for again.

    Args:
        declaration: The model.
        store: Where the training sets are kept, and the models go.
    """

    def __init__(self, declaration: ModelDeclaration, store: ArtifactStore) -> None:
        self._declaration, self._store = declaration, store
        self._asked: deque[AskedTraining] = deque()
        self._process: Any = None
        self._connection: Connection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()

    def ask(self, training: AskedTraining) -> None:
        """Ask for a training; `trained` gives it."""
        if self._connection is None:
            # Not a fork: libraries' threads do not survive it.
            context = multiprocessing.get_context("spawn")
            self._connection, its_own = context.Pipe()
            self._process = context.Process(
                target=_work,
                args=(its_own, self._declaration, self._store.root, settings().home_path),
                name="yardsticks",
                daemon=True,
            )
            self._process.start()
            its_own.close()
        self._asked.append(training)
        # A process that has ended is told of when it is listened to.
        with suppress(BrokenPipeError):
            self._connection.send(training.training_set_digest)

    def trained(self, *, wait: bool = False) -> Iterator[EveryTraining | FailedTraining]:
        """The trainings that have ended and were not given yet.

        Args:
            wait: Whether to wait for all that were asked for.

        Raises:
            StoreError: What it is trained on is gone, or its model cannot be written.
            LifecycleError: The process was killed.
        """
        while self._asked and self._connection is not None:
            try:
                if not (wait or self._connection.poll()):
                    return
                answer = self._connection.recv()
            except (EOFError, ConnectionResetError):
                self._process.join()
                raise LifecycleError(
                    f"The process that trains the yardsticks of {self._declaration.name} ended "
                    f"with {self._process.exitcode}.",
                    remedy="The same command goes on where it was.",
                ) from None
            if isinstance(answer, TrainingError):
                yield FailedTraining.of(self._asked.popleft(), answer)
                continue
            if isinstance(answer, AiosError):
                raise answer
            digest, seconds = answer
            yield EveryTraining.beside(self._asked.popleft(), digest, seconds)


def _work(connection: Connection, declaration: ModelDeclaration, root: str, home: Path) -> None:
    """Train as asked until the other side is gone."""
    # Ctrl-C is for the replay, which then ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    telemetry.configure("WARNING")
    collect_rarely()
    store = ArtifactStore(root)
    while True:
        try:
            wanted = connection.recv()
        except EOFError:
            return
        begin = time.perf_counter()
        try:
            digest = train_yardstick(declaration, store, home, wanted)
        except AiosError as error:
            connection.send(error)
        else:
            connection.send((digest, time.perf_counter() - begin))


def train_yardstick(
    declaration: ModelDeclaration, store: ArtifactStore, home: Path, wanted: str
) -> str:
    """Train on a training set that was kept, and store the model; its digest.

    Raises:
        ArtifactMissing: The training set was not kept.
        TrainingError: The training gave no usable model.
    """
    from aios_platform.training.trainer import train

    content = store.read_named(_record_name(declaration.name, wanted))
    if content is None:
        raise ArtifactMissing(
            f"What the yardstick {wanted[:12]} is trained on is not in the artifact root.",
            remedy="Restore the artifact root from a backup, or replay into a new home.",
        )
    record = TrainingSet.model_validate_json(content)
    workdir = home / "training" / declaration.name / f"yardstick-{wanted[:16]}"
    trained = train(
        declaration.training,
        record.features,
        store.scan(record.frames),
        label=declaration.label.column,
        answers=declaration.answers,
        workdir=workdir,
    )
    store.put(trained.onnx, ".onnx")
    shutil.rmtree(workdir, ignore_errors=True)
    return trained.digest


def _record_name(model: str, digest: str) -> str:
    return f"replays/{model}/yardsticks/{digest}.json"
