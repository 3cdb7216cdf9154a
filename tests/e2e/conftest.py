"""A home in which a replay of the small model has come to its first champion, again and again."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from aios_platform.resources.stores import Stores
from tests.e2e import replaying, small_flights
from tests.e2e.replaying import Grown, Replaying, small
from tests.homes import forget


@pytest.fixture(autouse=True)
def _deliveries_as_they_are() -> Iterator[None]:
    yield
    small_flights.UPSET.clear()


@contextmanager
def _at(home: Path) -> Iterator[None]:
    """Live in a home, without Evidently's pages, which cost as much as the rest of a window."""
    before = os.environ["AIOS_HOME"]
    forget()
    os.environ["AIOS_HOME"] = str(home)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("aios_platform.monitoring.report.drift_page", lambda **_: None)
            yield
    finally:
        forget()
        os.environ["AIOS_HOME"] = before


@pytest.fixture(scope="session")
def young(tmp_path_factory) -> Iterator[tuple[Path, Path, dg.DagsterInstance]]:
    """A home whose replay was left when the first version had gone live, and a copy of it."""
    home = tmp_path_factory.mktemp("young")
    for path in (home, *home.parents[:2]):
        path.chmod(0o755)
    copy = home.with_name(f"{home.name}-copy")
    with dg.DagsterInstance.ephemeral() as instance:
        with _at(home):
            replay = Replaying(small(), Stores(), instance)
            assert replay.begin() == 6
            replay.until(matured="2013-04")
            replaying.keep(home, copy)
        yield home, copy, instance


@pytest.fixture(scope="module")
def again(young) -> Iterator[Any]:
    """The young home as it was, for a replay that goes on under a declaration."""
    home, copy, _ = young

    with _at(home), ExitStack() as instances:

        def go_on(last: str, **declared: Any) -> Replaying:
            replaying.put_back(copy, home)
            instance = instances.enter_context(dg.DagsterInstance.ephemeral())
            replay = Replaying(small(**declared), Stores(), instance)
            replay.go_on(last)
            return replay

        yield go_on


@pytest.fixture(scope="session")
def grown(young) -> Grown:
    """The replay of the young home, taken up by another process, as it were, and ended."""
    home, copy, instance = young
    with _at(home):
        replaying.put_back(copy, home)
        replay = Replaying(small(), Stores(), instance)
        assert replay.begin() == 4
        replay.until(matured="2013-06")
        found = replay.result()
        older = home.with_name(f"{home.name}-grown")
        replaying.keep(home, older)
    return Grown(home, older, instance, found, instance.get_runs_count())


@pytest.fixture(scope="module")
def calm(grown) -> Iterator[Replaying]:
    """The replay that is done, in its home."""
    with _at(grown.home):
        replaying.put_back(grown.copy, grown.home)
        replay = Replaying(small(), Stores(), grown.instance)
        assert replay.begin() == 0
        yield replay
