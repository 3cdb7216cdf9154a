"""The whole life of a model, disturbed at both sides of its writes: the end is always the same."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from aios_platform.artifacts import ArtifactStore
from aios_platform.database import Database, open_database
from aios_platform.ledger.champions import champion_of
from aios_platform.ledger.entries import entries
from aios_platform.settings import PROJECT_ROOT, Settings
from tests.faults import tiny
from tests.postgres_servers import stop_postgres

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(1800)]


class Home:
    """An installation of its own, and a process that lives the tiny model's life in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database: Database = open_database(Settings(home=folder))
        self.store = ArtifactStore(str(folder / "artifacts"))
        ours = {name: value for name, value in os.environ.items() if not name.startswith("AIOS_")}
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.faults.lifecycle_process"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=PROJECT_ROOT,
            env=ours | {"AIOS_HOME": str(folder)},
        )  # fmt: skip

    def attempt(
        self,
        fault: str = "none",
        names: Collection[str] = (),
        as_of: datetime = tiny.FIRST,
        promote: str = "",
    ) -> dict[str, Any]:
        """One call of the command: what happens at the first of these boundaries, and the end."""
        asked = {"fault": fault, "names": list(names), "as_of": as_of.isoformat()}
        asked["promote"] = promote
        return self._ask(json.dumps(asked))

    def go_on(self) -> dict[str, Any]:
        """Let a call that was stopped go on, and see how it ended."""
        return self._ask("")

    def _ask(self, line: str) -> dict[str, Any]:
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        said: dict[str, Any] = json.loads(self._process.stdout.readline())
        return said

    def end_state(self) -> dict[str, Any]:
        """What a person would call the result, without moments and without names of runs."""
        found: dict[str, Any] = {}
        root = Path(self.store.root)
        for path in sorted(root.glob("datasets/**/versions.json")):
            dataset, key = str(path.parent.relative_to(root / "datasets")).rsplit("/", 1)
            version = self.store.current(dataset, key)
            assert self.store.read(version).num_rows == version.rows
            found[f"{dataset}/{key}"] = version.digest
        champion = champion_of(self.database, "tiny")
        found["champion"] = champion and (champion.version, champion.model_digest)
        rows = entries(self.database, subject="tiny", limit=1000)
        for row in sorted(rows, key=lambda row: row.seq):
            decided, known = _decided(row.payload), found.setdefault(row.kind, [])
            # A verdict whose step was killed after it is reached again; the ledger has both.
            if row.kind != "verdict" or decided not in known:
                known.append(decided)
        return found

    def close(self) -> None:
        self._process.communicate(timeout=60)
        self.database.close()
        # Calls that were killed still count as its users, so nobody else ends it.
        stop_postgres(self.folder, signal.SIGKILL)


def _decided(payload: dict[str, Any]) -> Any:
    if "verdict" in payload:
        verdict = payload["verdict"]
        rules = [(rule["rule"], rule["outcome"]) for rule in verdict["rules"]]
        return verdict["decision"], verdict["candidate_digest"], verdict["exam_digest"], rules
    if "decision" in payload:
        decision = payload["decision"]
        return decision["window"], decision["action"], decision["cause"]
    return {name: payload[name] for name in ("version", "model_digest") if name in payload}


@pytest.fixture(scope="module")
def homes(tmp_path_factory) -> Iterator[Any]:
    made: list[Home] = []

    def make() -> Home:
        folder = tmp_path_factory.mktemp("life")
        for path in (folder, *folder.parents[:2]):
            path.chmod(0o755)
        made.append(Home(folder))
        return made[-1]

    yield make
    for home in made:
        home.close()


@dataclass(frozen=True)
class Life:
    """A life in which nothing happened: its boundaries, and its state after five and six days."""

    boundaries: list[str]
    first: dict[str, Any]
    second: dict[str, Any]


@pytest.fixture(scope="module")
def undisturbed(homes) -> Life:
    home = homes()
    done = home.attempt()
    assert done["status"] == 0, done["error"]
    assert home.attempt()["boundaries"] == [], "a second call has something left to write"
    first = home.end_state()
    more = home.attempt(as_of=tiny.SECOND)
    assert more["status"] == 0, more["error"]
    return Life(done["boundaries"], first, home.end_state())


def test_the_life_has_every_stage_and_a_champion(undisturbed):
    steps = {line.split()[-1] for line in undisturbed.boundaries if " STEP_SUCCESS " in line}
    for stage in ("raw", "features", "predictions", "training_set", "candidate", "verdict",
                  "champion", "drift", "performance", "retrain_decision"):  # fmt: skip
        assert any(step.endswith(stage) for step in steps), stage
    end = undisturbed.first
    assert end["champion"][0] == "1"
    assert len(end["verdict"]) == len(end["candidate"]) == len(end["promotion"]) == 1
    assert set(end) > {"tiny/predictions/2024-01-05", "tiny/raw/rows/2024-01-01"}
    assert set(undisturbed.second) > {"tiny/predictions/2024-01-06"}


def killed_at(home: Home, names: set[str]) -> list[str]:
    """Kill at each of these boundaries, each time in another call; those that were come to."""
    left, found = set(names), []
    while (done := home.attempt("kill", left))["status"] == -signal.SIGKILL:
        left.remove(done["acted"])
        found.append(done["acted"])
    assert done["status"] == 0, done["error"]
    return found


def refused_at(home: Home, names: set[str]) -> list[str]:
    """A disk that is full from each of these boundaries on, each time in another call."""
    left, found = set(names), []
    while (done := home.attempt("full", left))["acted"]:
        assert done["status"] == 3, done
        assert "No space left on device" in done["error"]
        left.remove(done["acted"])
        found.append(done["acted"])
    assert done["status"] == 0, done["error"]
    return found


def stopped_at(home: Home, name: str) -> None:
    """Stop a call at a boundary."""
    said = home.attempt("stop", {name})
    assert "stopped" in said, said
    assert psutil.Process(said["stopped"]).status() == psutil.STATUS_STOPPED


def sampled(names: Iterable[str], count: int) -> set[str]:
    """So many of them, evenly from the whole life."""
    ordered = list(dict.fromkeys(names))
    return {ordered[place * len(ordered) // count] for place in range(count)}


def publications(life: Life) -> list[str]:
    return [name for name in life.boundaries if name.startswith("before publish")]


@pytest.fixture(scope="module")
def disturbed(homes, undisturbed) -> Home:
    """A life with a bit of everything, up to its end after five days."""
    home = homes()
    (early, middle, late) = sorted(
        sampled(publications(undisturbed), 3), key=undisturbed.boundaries.index
    )
    done = home.attempt("kill", {early})
    assert (done["status"], done["acted"]) == (-signal.SIGKILL, early)
    full = home.attempt("full", {middle})
    assert full["status"] == 3
    assert "No space left on device" in full["error"]
    stopped_at(home, late)
    stop_postgres(home.folder, signal.SIGKILL)
    home.database.close()
    home.database = open_database(Settings(home=home.folder))
    lost = home.go_on()
    assert lost["status"] == 3
    assert "Postgres" in lost["error"]
    killed_at(home, sampled(undisturbed.boundaries, 5))
    return home


def test_a_life_that_was_disturbed_ends_as_one_that_was_not(disturbed, undisturbed):
    assert disturbed.end_state() == undisturbed.first
    assert disturbed.attempt()["boundaries"] == []


def flipped(content: bytes) -> bytes:
    place = len(content) // 2
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def halved(content: bytes) -> bytes:
    return content[: len(content) // 2]


@pytest.mark.parametrize("damage", [flipped, halved])
def test_a_damaged_file_is_refused_and_nothing_comes_of_it(disturbed, undisturbed, damage):
    """The next day is scored by the champion's bytes and held against the rows of its training."""
    champion = champion_of(disturbed.database, "tiny")
    model = Path(disturbed.store.blob_uri(champion.model_digest, ".onnx"))
    content = model.read_bytes()
    model.write_bytes(damage(content))
    before = disturbed.end_state()
    done = disturbed.attempt(as_of=tiny.SECOND)
    assert done["status"] == 3
    assert champion.model_digest in done["error"]
    after = disturbed.end_state()
    assert "tiny/predictions/2024-01-06" not in after
    assert after["champion"] == before["champion"]
    model.write_bytes(content)


def test_with_the_file_restored_the_same_command_finishes(disturbed, undisturbed):
    """What was judged while the champion could not be read stays undecided until it is asked."""
    done = disturbed.attempt(as_of=tiny.SECOND)
    assert done["status"] == 0, done["error"]
    asked = disturbed.attempt(as_of=tiny.SECOND, promote=undisturbed.second["champion"][0])
    assert asked["status"] == 0, asked["error"]
    end = disturbed.end_state()
    end["verdict"] = [found for found in end["verdict"] if found[0] != "inconclusive"]
    assert end == undisturbed.second


@pytest.mark.long
def test_killed_at_every_boundary(homes, undisturbed):
    home = homes()
    names = set(undisturbed.boundaries)
    found = killed_at(home, names)
    assert len(found) > 0.9 * len(names), names - set(found)
    assert home.end_state() == undisturbed.first


@pytest.mark.long
def test_a_full_disk_at_every_publication(homes, undisturbed):
    home = homes()
    names = set(publications(undisturbed))
    found = refused_at(home, names)
    assert len(found) > 0.9 * len(names), names - set(found)
    assert home.end_state() == undisturbed.first


@pytest.mark.long
def test_stopped_and_continued(homes, undisturbed):
    home = homes()
    name = next(name for name in undisturbed.boundaries if "STEP_START tiny__candidate" in name)
    stopped_at(home, name)
    time.sleep(5)
    done = home.go_on()
    assert done["status"] == 0, done["error"]
    assert home.end_state() == undisturbed.first


@pytest.mark.long
def test_a_clock_that_steps_back_and_forward(homes, undisturbed):
    home = homes()
    for days in (-2, -4, 0, -1):
        done = home.attempt(as_of=tiny.FIRST + timedelta(days=days))
        assert done["status"] == 0, done["error"]
    assert home.end_state()["champion"] == undisturbed.first["champion"]
