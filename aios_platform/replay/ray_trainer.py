"""Trains the yardsticks of a replay on Ray, as many at once as it has cores for (extra `ray`)."""

import logging
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from aios_platform.artifacts import ArtifactStore
from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.errors import LifecycleError, TrainingError
from aios_platform.profiles import require_extra
from aios_platform.replay.progress import AskedTraining, EveryTraining, FailedTraining
from aios_platform.replay.yardstick_trainer import train_yardstick
from aios_platform.settings import settings


class RayYardstickTrainer:
    """Trains what it is asked to, each as a Ray task; gives them in the order they were asked for.

    The workers need this package, and reach the artifact root. A context manager: at its end what
    still runs is cancelled, and done again when it is asked for again.

    Args:
        declaration: The model.
        store: Where the training sets are kept, and the models go.
        root: URL of the artifact root, for the workers.
        address: Of the Ray cluster; 'local' starts one here.

    Raises:
        SettingsError: Ray is not installed.
    """

    def __init__(
        self, declaration: ModelDeclaration, store: ArtifactStore, root: str, address: str
    ) -> None:
        require_extra("ray", "ray", "AIOS_RAY_ADDRESS")
        self._declaration, self._store = declaration, store
        self._root, self._address = root, address
        self._asked: deque[tuple[AskedTraining, Any]] = deque()
        self._begun = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._begun:
            return
        import ray

        for _asked, unfinished in self._asked:
            ray.cancel(unfinished, force=True)
        ray.shutdown()

    def ask(self, training: AskedTraining) -> None:
        """Ask for a training; `trained` gives it."""
        import ray

        if not self._begun:
            ray.init(
                address=self._address, include_dashboard=None, log_to_driver=False,
                logging_level=logging.ERROR,
            )  # fmt: skip
            self._begun = True
        task = ray.remote(num_cpus=1, max_retries=3)(_train).remote(
            self._declaration, self._root, settings().home_path, training.training_set_digest
        )
        self._asked.append((training, task))

    def trained(self, *, wait: bool = False) -> Iterator[EveryTraining | FailedTraining]:
        """The trainings that have ended and were not given yet.

        Args:
            wait: Whether to wait for all that were asked for.

        Raises:
            StoreError: What it is trained on is gone, or its model cannot be written.
            LifecycleError: Its worker died, four times.
        """
        import ray
        from ray.exceptions import RayError, RayTaskError

        while self._asked:
            asked, task = self._asked[0]
            if not wait and not ray.wait([task], timeout=0)[0]:
                return
            try:
                digest, seconds = ray.get(task)
            except RayTaskError as error:
                if not isinstance(error.cause, TrainingError):
                    raise error.cause from error
                self._asked.popleft()
                yield FailedTraining.of(asked, error.cause)
                continue
            except RayError as error:
                raise LifecycleError(
                    f"The training of a yardstick of {self._declaration.name} on Ray ended with "
                    f"{type(error).__name__}.",
                    remedy="The same command goes on where it was.",
                ) from error
            self._asked.popleft()
            yield EveryTraining.beside(asked, digest, seconds)


def _train(declaration: ModelDeclaration, root: str, home: Path, wanted: str) -> tuple[str, float]:
    import time

    begin = time.perf_counter()
    digest = train_yardstick(declaration, ArtifactStore(root), home, wanted)
    return digest, time.perf_counter() - begin
