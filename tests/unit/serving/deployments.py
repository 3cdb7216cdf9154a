"""Deployments of small models, and requests to them, without a gateway."""

import asyncio
import time
from datetime import UTC, datetime

from aios_platform.contracts.decisions import Champion
from aios_platform.contracts.rollouts import Rollout, RolloutMode, RolloutState
from aios_platform.contracts.serving import RolloutStep
from aios_platform.serving.contract import input_contracts
from aios_platform.serving.deployment import Deployment, Loaded, Trial
from aios_platform.serving.fallbacks import Fallbacks
from aios_platform.serving.version import load_version
from aios_platform.serving.work import Work, moments_of
from tests.served_models import FEATURES, SERVICE_DIGEST, declaration


def version_of(store, content, declared, version="1", features=FEATURES):
    digest, _ = store.put(content, ".onnx")
    served, _ = load_version(
        store, declared.serving, model=declared.name, version=version, digest=digest,
        features=features, service_digest=SERVICE_DIGEST,
    )  # fmt: skip
    return served


def deployment_of(
    store,
    content,
    *,
    record=lambda _: None,
    pair=lambda _: None,
    fallbacks=None,
    features=FEATURES,
    reader=None,
    policy=None,
    **serving,
):
    """A deployment; to be made on an event loop. `policy` is that of its stored features."""
    declared = declaration(features=policy or {}, **serving)
    live = version_of(store, content, declared, features=features)
    champion = Champion.model_construct(version="1", revision=1)
    loaded = Loaded(
        declared, champion, live, fallbacks or Fallbacks(),
        input_contracts(declared, features, {}), None,
    )  # fmt: skip
    return Deployment(loaded, reader, record=record, pair=pair)


def work_for(deployment, rows, done, seconds=5.0):
    contract = deployment.contract
    tuples = [tuple(row.get(name) for name in contract.names) for row in rows]
    now = time.monotonic()
    return Work(
        "r1", contract, tuples, None, moments_of(tuples, contract.moment, time.time()),
        [None] * len(rows), now, now + seconds, done,
    )  # fmt: skip


async def answered(deployment, works):
    for work in works:
        deployment.submit(work)
    await ended(works)


async def ended(works):
    async with asyncio.timeout(10):
        while not all(work.ended for work in works):
            await asyncio.sleep(0.001)


def trial_of(version, **changes):
    """A canary of everybody, unless it is said otherwise."""
    now = datetime.now(UTC)
    described = {
        "model": version.model,
        "number": 1,
        "mode": RolloutMode.CANARY,
        "state": RolloutState.RUNNING,
        "version": version.version,
        "model_digest": version.digest,
        "training_set_digest": "7" * 64,
        "live_version": "1",
        "live_revision": 1,
        "step": 0,
        "steps": (RolloutStep(share=1.0),),
        "started_at": now,
        "step_since": now,
        "reason": "try it",
    }
    return Trial(Rollout(**described | changes), version)
