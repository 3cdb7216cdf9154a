"""When the daemon starts anew: without its lock, in silence, after a step of its clock."""

import threading
import time

import pytest

from aios_platform.daemon import guard as guarding
from aios_platform.daemon.clock import Clock
from aios_platform.daemon.guard import Guard


class Watches:
    """A wall clock that can be set, beside one that cannot."""

    def __init__(self) -> None:
        self.wall, self.steady = 1_000_000.0, 50.0
        self.clock = Clock(lambda: self.wall, lambda: self.steady)

    def go(self, seconds: float, *, set_back: float = 0.0) -> float:
        self.steady += seconds
        self.wall += seconds - set_back
        return self.clock.stepped_back()


def test_a_step_back_is_noticed_once_and_the_rest_is_not_one():
    watches = Watches()
    assert watches.go(1) == 0
    assert watches.go(1, set_back=3600) == pytest.approx(3600)
    assert watches.go(1) == 0
    assert watches.go(1, set_back=-3600) == 0
    # A time server's corrections, also many of them.
    assert [watches.go(1, set_back=5) for _ in range(20)] == [0] * 20


@pytest.fixture
def started(monkeypatch):
    """Starts a guard; gives the reason for which it would start the daemon anew."""
    monkeypatch.setattr(guarding, "PULSE_SECONDS", 0.01)
    guards = []

    def start(still_held, clock=None) -> tuple[Guard, list[str], threading.Event, list[float]]:
        reasons, done, steps = [], threading.Event(), []

        def start_anew(reason: str) -> None:
            reasons.append(reason)
            done.set()

        guard = Guard(still_held, clock or Clock(), steps.append, start_anew)
        guards.append(guard)
        guard.start()
        return guard, reasons, done, steps

    yield start
    for guard in guards:
        guard.stop()


def test_a_daemon_that_holds_its_lock_is_left_alone(started):
    guard, reasons, _, _ = started(lambda: True)
    time.sleep(0.1)
    assert reasons == []
    assert not guard.lost()


def test_a_lost_lock_starts_it_anew(started):
    held = [True]
    guard, reasons, done, _ = started(lambda: held[0])
    held[0] = False
    assert done.wait(10)
    assert guard.lost()
    assert reasons == ["its lock was lost with its connection to Postgres"]


def test_a_server_that_swallows_every_question_starts_it_anew(started, monkeypatch):
    monkeypatch.setattr(guarding, "SILENCE_SECONDS", 0.1)
    silence = threading.Event()
    _, reasons, done, _ = started(lambda: silence.wait(30))
    assert done.wait(10)
    silence.set()
    assert "has not answered" in reasons[0]


def test_a_clock_that_was_set_back_starts_it_anew_and_is_told(started):
    watches = Watches()
    _, reasons, done, steps = started(lambda: True, watches.clock)
    watches.wall -= 3600
    assert done.wait(10)
    assert steps == [3600]
    assert reasons == ["the clock was set back by 3600 s"]
