"""Follows the ledger: promotions, rollbacks, new models and rollouts reach traffic unasked."""

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime

from aios_platform.alerts.outbox import resolve, try_raise
from aios_platform.contracts.alerts import Alert, AlertKind, Severity
from aios_platform.contracts.decisions import Champion
from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.contracts.rollouts import Rollout
from aios_platform.database import Database
from aios_platform.errors import AiosError, DatabaseUnavailable
from aios_platform.ledger.champions import champions
from aios_platform.ledger.rollouts import active_rollouts
from aios_platform.serving import metrics
from aios_platform.serving.deployment import Deployment, Loaded
from aios_platform.serving.loading import Origins
from aios_platform.serving.problems import traced

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0
RETRY_SECONDS = 30.0

Deploy = Callable[[Loaded], Deployment]


class Watcher:
    """Keeps deployments in step with the ledger.

    Args:
        origins: Where versions come from.
        declarations: The models that are served, by name.
        deployments: What serves now, by model; changed in place, on the event loop.
        deploy: Makes a deployment of what was loaded.
    """

    def __init__(
        self,
        origins: Origins,
        declarations: dict[str, ModelDeclaration],
        deployments: dict[str, Deployment],
        deploy: Deploy,
    ) -> None:
        self._origins = origins
        self._declarations = declarations
        self._deployments = deployments
        self._deploy = deploy
        self._given_up: dict[tuple[str, str, int], float] = {}
        self._retiring: set[asyncio.Task[None]] = set()
        self.reachable = False
        """Whether the ledger answered when it was last asked."""
        self.looked_at = 0.0

    async def run(self) -> None:
        """Look every second, until cancelled."""
        while True:
            try:
                await self.look()
            except Exception:
                logger.exception("The ledger could not be followed; it is tried again.")
            await asyncio.sleep(POLL_SECONDS)

    async def look(self) -> None:
        """Compare once what serves with what the ledger says; errors are logged."""
        try:
            live, rollouts = await asyncio.to_thread(_read, self._origins.database)
        except DatabaseUnavailable as error:
            if self.reachable:
                logger.warning("The ledger cannot be read; what serves goes on: %s", error)
            self._answered(False)
            return
        self._answered(True)
        for name, declaration in self._declarations.items():
            try:
                champion = live.get(name)
                if champion is not None:
                    await self._follow(declaration, champion)
                await self._try_out(declaration, rollouts.get(name))
            except Exception:
                # One model's trouble must not keep the others from being followed.
                logger.exception("%s could not be followed.", name)

    async def close(self) -> None:
        """Wait for versions that are on their way out."""
        await asyncio.gather(*self._retiring, return_exceptions=True)

    def _answered(self, reachable: bool) -> None:
        self.reachable = reachable
        self.looked_at = time.monotonic()
        metrics.REACHABLE.labels("ledger").set(reachable)

    async def _follow(self, declaration: ModelDeclaration, champion: Champion) -> None:
        serving = self._deployments.get(declaration.name)
        if serving is not None and serving.loaded.champion.revision == champion.revision:
            return
        if not self._due("champion", declaration.name, champion.revision):
            return
        try:
            loaded = await asyncio.to_thread(self._origins.load, declaration, champion)
            self._deployments[declaration.name] = self._deploy(loaded)
        except DatabaseUnavailable as error:
            logger.warning("Version %s is not loaded yet: %s", champion.version, error)
            return
        except Exception as error:
            self._cannot("champion", declaration.name, champion.revision)
            metrics.SWAPS.labels(declaration.name, "failed").inc()
            why = error.what if isinstance(error, AiosError) else traced(error)
            keeps = f"version {serving.live.version} keeps serving" if serving else "nothing serves"
            logger.error(
                "Version %s of %s cannot be served, %s: %s",
                champion.version, declaration.name, keeps, why,
            )  # fmt: skip
            await self._alarm(declaration.name, champion, why, keeps)
            return
        metrics.SWAPS.labels(declaration.name, "done").inc()
        if serving is not None:
            metrics.LIVE.labels(declaration.name, serving.live.version).set(0)
        metrics.LIVE.labels(declaration.name, champion.version).set(1)
        logger.info(
            "%s serves version %s (revision %d).",
            declaration.name, champion.version, champion.revision,
        )  # fmt: skip
        if serving is not None:
            self._retire(serving)
        await self._calm(declaration.name, champion)

    def _retire(self, serving: Deployment) -> None:
        task = asyncio.ensure_future(serving.retire())
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def _try_out(self, declaration: ModelDeclaration, rollout: Rollout | None) -> None:
        serving = self._deployments.get(declaration.name)
        if serving is None:
            return
        current = serving.trial
        if rollout is not None and rollout.live_version != serving.live.version:
            rollout = None
        if rollout is None:
            if current is not None:
                logger.info("%s: the candidate gets no traffic any more.", declaration.name)
                serving.set_trial(None)
            return
        if current is not None and current.rollout == rollout:
            return
        if current is not None and _candidate(current.rollout) == _candidate(rollout):
            serving.set_trial(type(current)(rollout, current.version))
            return
        if not self._due("rollout", declaration.name, rollout.number):
            return
        try:
            trial = await asyncio.to_thread(
                self._origins.load_trial, declaration, rollout, serving.loaded
            )
        except Exception as error:
            self._cannot("rollout", declaration.name, rollout.number)
            why = error.what if isinstance(error, AiosError) else traced(error)
            logger.error(
                "Candidate %s of %s gets no traffic: %s", rollout.version, declaration.name, why
            )
            return
        if self._deployments.get(declaration.name) is serving:
            serving.set_trial(trial)

    def _due(self, what: str, model: str, number: int) -> bool:
        """Whether to try: not again at once what just failed."""
        return time.monotonic() >= self._given_up.get((what, model, number), 0.0)

    def _cannot(self, what: str, model: str, number: int) -> None:
        self._given_up[what, model, number] = time.monotonic() + RETRY_SECONDS

    async def _alarm(self, model: str, champion: Champion, why: str, keeps: str) -> None:
        alert = Alert(
            kind=AlertKind.VERSION_UNUSABLE,
            subject=model,
            key=_alert_key(model),
            severity=Severity.CRITICAL,
            summary=f"Version {champion.version} cannot be served, {keeps}: {why}",
            evidence={"version": champion.version, "revision": champion.revision},
            raised_at=datetime.now(UTC),
        )
        await self._tell(lambda database: try_raise(database, alert))

    async def _calm(self, model: str, champion: Champion) -> None:
        why = f"version {champion.version} serves"
        await self._tell(lambda database: resolve(database, _alert_key(model), reason=why))

    async def _tell(self, telling: Callable[[Database], object]) -> None:
        try:
            await asyncio.to_thread(telling, self._origins.database)
        except AiosError as error:
            logger.warning("An alert could not be written: %s", error)


def _alert_key(model: str) -> str:
    return f"{AlertKind.VERSION_UNUSABLE}:{model}"


def _candidate(rollout: Rollout) -> tuple[str, str, str]:
    return rollout.version, rollout.model_digest, rollout.training_set_digest


def _read(database: Database) -> tuple[dict[str, Champion], dict[str, Rollout]]:
    return champions(database), active_rollouts(database)
