"""Online features of flights: the gateway's reader beside Feast's own SDK.

    python benchmarks/online_features.py [--home FOLDER] [--rounds 5]

One month of features in the online store (embedded Postgres), asked for flights of the next, both
sides in turn. Every value is compared first. CPU time is that of the asking process; the
server's, which both sides cost, is given beside it. The target is a tenth of the SDK called per
request.
"""

import argparse
import asyncio
import itertools
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import uvloop
import yaml
from measuring import ALIKE

REQUESTS = 1024
BATCH = 64
MONTH, NEXT = "2013-01", "2013-02"


def main() -> None:
    """Fill the store, compare, measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--home", type=Path, help="kept between runs; else temporary")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as scratch:
        home = arguments.home or Path(scratch) / "home"
        home.mkdir(parents=True, exist_ok=True)
        os.environ.update(ALIKE, AIOS_HOME=str(home))
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(measured(home, arguments.rounds))


async def measured(home: Path, rounds: int) -> None:
    """Measure all contenders on one store."""
    from aios_platform.contracts.serving import OnlinePolicy
    from aios_platform.database import database
    from aios_platform.features.materialize import read_online
    from aios_platform.features.online_plan import online_plan
    from aios_platform.serving.features import OnlineReader

    declaration, feast, flights, moment = filled_store()
    plan = online_plan(declaration, feast)
    service = feast.get_feature_service(declaration.features.service)
    rows = [
        tuple(moment if name == plan.moment else flight[name] for name in plan.inputs)
        for flight in flights
    ]
    asked = [dict(zip(plan.inputs, row, strict=True)) for row in rows]
    moments = np.full(len(rows), moment.timestamp())
    places = {name: place for place, name in enumerate(plan.inputs)}
    url = database().url("feast")
    fresh = OnlineReader(
        plan, url, places=places, policy=OnlinePolicy(cache_seconds=0.0, cache_entities=0)
    )
    cached = OnlineReader(plan, url, places=places, policy=OnlinePolicy(cache_seconds=3600.0))

    async def sdk(start: int, count: int) -> Any:
        return read_online(feast, service, asked[start : start + count], as_of=moment)

    def ours(reader: OnlineReader) -> Callable[[int, int], Awaitable[Any]]:
        return lambda at, count: reader.read(rows[at : at + count], moments[at : at + count])

    async def at_once(start: int, count: int) -> None:
        """As many requests at the same time, each of one row."""
        one = ours(fresh)
        await asyncio.gather(*(one(place, 1) for place in range(start, start + count)))

    block = await cached.read(rows, moments)
    truth = (await sdk(0, len(rows))).values
    wanted = np.array([truth[n] for n in plan.numerical], np.float64).astype(np.float32).T
    same = (wanted == block.matrix) | (np.isnan(wanted) & np.isnan(block.matrix))
    print(f"{same.size:,} values of {len(rows):,} flights: {int((~same).sum())} differ.\n")

    contenders: dict[str, tuple[Callable[[int, int], Awaitable[Any]], int, int]] = {
        "Feast SDK, per request": (sdk, 1, 64),
        f"Feast SDK, {BATCH} rows": (sdk, BATCH, 512),
        "ours, per request": (ours(fresh), 1, REQUESTS),
        f"ours, {BATCH} requests at once": (at_once, BATCH, REQUESTS),
        f"ours, {BATCH} rows": (ours(fresh), BATCH, REQUESTS),
        "ours, per request, cached": (ours(cached), 1, REQUESTS),
        f"ours, {BATCH} rows, cached": (ours(cached), BATCH, REQUESTS),
    }
    spent: dict[str, list[tuple[float, float, float]]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, (ask, count, total) in contenders.items():
            spent[name].append(await costs(ask, count, total, home))
    reference = statistics.median(cpu for cpu, _, _ in spent["Feast SDK, per request"])
    print("| | CPU µs a row | server's | wall | CPU, SDK per request / this |")
    print("|---|---:|---:|---:|---:|")
    for name, found in spent.items():
        cpu, server, wall = (statistics.median(each) for each in zip(*found, strict=True))
        print(f"| {name} | {cpu:,.1f} | {server:,.0f} | {wall:,.1f} | {reference / cpu:,.0f} |")
    await fresh.close()
    await cached.close()


async def costs(
    ask: Callable[[int, int], Awaitable[Any]], count: int, total: int, home: Path
) -> tuple[float, float, float]:
    """CPU of this process, CPU of the server, wall time; µs a row."""
    await ask(0, count)
    server, cpu, wall = server_seconds(home), time.process_time(), time.perf_counter()
    for start in range(0, total, count):
        await ask(start, count)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return tuple(  # type: ignore[return-value]
        seconds / total * 1e6 for seconds in (cpu, server_seconds(home) - server, wall)
    )


def server_seconds(home: Path) -> float:
    """CPU seconds of the embedded server's processes so far."""
    return sum(
        sum(each.cpu_times()[:2])
        for process in psutil.process_iter(["name", "cmdline"])
        if "postgres" in (process.info["name"] or "")
        and any(str(home) in part for part in process.info["cmdline"] or [])
        for each in [process, *process.children(recursive=True)]
    )


def filled_store() -> tuple[Any, Any, list[dict[str, Any]], datetime]:
    """The declaration, Feast's store with a month in it, flights of the next, the moment."""
    from aios_platform.artifacts import ArtifactStore
    from aios_platform.contracts.declaration import ModelDeclaration
    from aios_platform.database import database
    from aios_platform.defs.flight_delay.source import read_window
    from aios_platform.features.materialize import materialize
    from aios_platform.features.repository import apply_repository
    from aios_platform.features.store import open_feature_store
    from aios_platform.features.tables import build_feature_tables
    from aios_platform.settings import PROJECT_ROOT, settings

    model = PROJECT_ROOT / "aios_platform" / "defs" / "flight_delay"
    declared = yaml.safe_load((model / "defs.yaml").read_text())["attributes"]
    declaration = ModelDeclaration.model_validate(declared)
    store = ArtifactStore(settings().artifact_root)
    window = declaration.windows.window(MONTH)
    for name, table in read_window(window).items():
        store.write(f"{declaration.name}/raw/{name}", window.key, table)
    build_feature_tables(declaration, model / "features", window, store)
    repo = PROJECT_ROOT / "feature_repo"
    feast = open_feature_store(repo, database().url("feast"))
    apply_repository(feast, repo)
    materialize(declaration, [window], store, feast)
    flights = read_window(declaration.windows.window(NEXT))["flights"].to_pylist()
    spread = itertools.islice(flights, 0, None, len(flights) // REQUESTS)
    moment = window.end.astimezone(UTC) - timedelta(seconds=1)
    return declaration, feast, list(spread)[:REQUESTS], moment


if __name__ == "__main__":
    main()
