"""Daemons that die where they are told to: `python -m tests.integration.daemon.crashing PORT`.

Each line of standard input is a daemon's life: a fork of this process, which has imported Dagster
and holds nothing open. It takes the daemon's place, and runs Dagster's real sensor daemon.
"""

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import dagster as dg
import dagster._grpc.client
from dagster._core.remote_representation.code_location import GrpcServerCodeLocation
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import GrpcServerTarget
from dagster._daemon import sensor as sensor_daemon
from dagster._daemon.daemon import SensorDaemon

from aios_platform.daemon import seat
from aios_platform.daemon.scheduling import make_up_for_step
from aios_platform.daemon.seat import taken
from aios_platform.database import database
from tests.integration.daemon.probe import folder

EVALUATING = "EVALUATING"
EVALUATED = "EVALUATED"
REPORTED = "REPORTED"
BEFORE_CURSOR = "BEFORE_CURSOR"


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def keep_trial() -> dict[str, Any]:
    """What is on trial as a tick begins, kept for its evaluation: that sees no later one."""
    written = (folder() / "trial.json").read_text()
    new = folder() / f"tick.{os.getpid()}"
    new.write_text(written)
    new.replace(folder() / "tick.json")
    return json.loads(written)


class Point:
    """Where the daemon dies next, if its tick is of the sensor; read when the tick begins."""

    def __init__(self) -> None:
        self.armed: str | None = None
        self.sensor = ""

    def get(self, key: str, default: object = None) -> object:
        """As Dagster's crash flags: by sensor, then by point."""
        if "__" in key:
            self.sensor = key
            return self
        if key == "TICK_CREATED":
            trial = keep_trial()
            self.armed = trial["point"] if trial["sensor"] == self.sensor else None
        return signal.SIGKILL if key == self.armed else None

    def __bool__(self) -> bool:
        return True


@contextmanager
def crashing() -> Iterator[None]:
    """Dagster's own crash points, and those around what it calls."""
    point = Point()
    iterate = sensor_daemon.execute_sensor_iteration
    evaluate = GrpcServerCodeLocation.get_sensor_execution_data
    report = dg.DagsterInstance.report_runless_asset_event
    mark = dg.DagsterInstance.update_instigator_state

    def evaluated(*arguments, **options):
        if point.get(EVALUATING):
            threading.Timer(0.01, die).start()
        found = evaluate(*arguments, **options)
        if point.get(EVALUATED):
            die()
        return found

    def reported(*arguments, **options):
        report(*arguments, **options)
        if point.get(REPORTED):
            die()

    def marked(instance, state):
        if state.instigator_data.last_tick_success_timestamp and point.get(BEFORE_CURSOR):
            die()
        return mark(instance, state)

    sensor_daemon.MIN_INTERVAL_LOOP_TIME = 0.05
    sensor_daemon.execute_sensor_iteration = lambda *arguments, **options: iterate(
        *arguments, **options, debug_crash_flags=point
    )
    GrpcServerCodeLocation.get_sensor_execution_data = evaluated
    dg.DagsterInstance.report_runless_asset_event = reported
    dg.DagsterInstance.update_instigator_state = marked
    yield


def live(port: int, *kinds: str) -> None:
    """One daemon, until it is killed.

    Args:
        port: Where the code server listens.
        kinds: 'plain' for Dagster's daemon without our lock, 'patient' for one that waits between
            the ticks of a sensor.
    """
    if "patient" not in kinds:
        sensor_daemon.is_under_min_interval = lambda *_: False
    target = GrpcServerTarget(host="localhost", port=port, socket=None, location_name="probe")
    opened = database()
    with (
        nullcontext() if "plain" in kinds else taken(opened),
        dg.DagsterInstance.get() as instance,
        WorkspaceProcessContext(instance, target) as context,
        SensorDaemon(settings=instance.get_sensor_settings()) as daemon,
        crashing(),
    ):
        if "plain" not in kinds:
            make_up_for_step(opened, instance)
        for _ in daemon.core_loop(context, threading.Event()):
            pass


def main() -> None:
    port = int(sys.argv[1])
    seat.LOOK_SECONDS, seat.ALERT_AFTER_SECONDS = 0.1, 0.3
    with dg.DagsterInstance.get():
        # What each daemon would import, and look up, again.
        database().close()
    # The dead are nobody's children: that they are gone is seen from outside.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    say("ready")
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            try:
                live(port, *line.split())
            finally:
                os._exit(1)
        say(child)


def say(what: object) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
