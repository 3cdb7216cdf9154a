"""What a command took: wall time, CPU time, memory; and contenders in turn."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

BIN = Path(sys.executable).parent
MIB = 1 << 20
# The platform sets it for itself: threads that wait for each other do not spin meanwhile. Without
# it a script that shares its cores with anything else trains three times as long.
ALIKE = {"OMP_WAIT_POLICY": "PASSIVE"}
NO_BYTECODE = "PYTHONDONTWRITEBYTECODE"
LIBRARIES = (
    "dagster", "dagster_postgres", "duckdb", "evidently", "feast", "great_expectations",
    "matplotlib.figure", "mlflow", "onnx", "onnxruntime", "pandas", "polars",
    "pytorch_lightning", "scipy.stats", "sklearn.linear_model", "torch",
)  # fmt: skip


@dataclass(frozen=True)
class Measurement:
    """What one run took.

    Attributes:
        seconds: Wall time.
        cpu: CPU seconds of the process and its children.
        peak: Peak resident memory of the process itself or its largest child, bytes.
        server: Peak memory of servers it started beside itself (embedded Postgres), bytes;
            shared pages counted once.
        output: What it printed.
    """

    seconds: float
    cpu: float
    peak: int
    server: int
    output: str

    def __str__(self) -> str:
        return (
            f"{self.seconds:.1f} s, {self.cpu:.1f} CPU s, peak {self.peak / MIB:.0f} MiB, "
            f"server {self.server / MIB:.0f} MiB"
        )


def measure(
    command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None
) -> Measurement:
    """Run a command whose whole state lies in a folder.

    Args:
        command: The command line.
        folder: Its `AIOS_HOME`.
        environment: Further variables.
    """
    keep_bytecode()
    log = folder.with_suffix(".log")
    watch = ServerWatch(folder)
    begin = time.perf_counter()
    with log.open("wb") as out:
        child = subprocess.Popen(
            command,
            env={**_environment(), "AIOS_HOME": str(folder), **(environment or {})},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
        with watch:
            _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - begin
    child.returncode = os.waitstatus_to_exitcode(status)
    output = log.read_text(errors="replace")
    if child.returncode != 0:
        print(output[-4000:], file=sys.stderr)
        raise SystemExit(f"{' '.join(command)} ended with {child.returncode}; see {log}")
    return Measurement(
        seconds=seconds,
        cpu=usage.ru_utime + usage.ru_stime,
        peak=usage.ru_maxrss * 1024,
        server=watch.peak,
        output=output,
    )


@cache
def keep_bytecode() -> None:
    """Import the libraries once, so that no run compiles them: only a first run ever does."""
    code = f"import {', '.join(LIBRARIES)}"
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], env=_environment(), capture_output=True,
        check=True,
    )  # fmt: skip


def _environment() -> dict[str, str]:
    return {**{k: v for k, v in os.environ.items() if k != NO_BYTECODE}, **ALIKE}


class ServerWatch:
    """Peak memory of the processes whose command line names a folder."""

    def __init__(self, folder: Path) -> None:
        self.peak = 0
        self._folder = str(folder)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> "ServerWatch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(2):
            total = 0
            for process in psutil.process_iter(["name", "cmdline"]):
                named = any(self._folder in part for part in process.info["cmdline"] or [])
                if named and "postgres" in (process.info["name"] or ""):
                    for each in [process, *_children(process)]:
                        total += _pss(each)
            self.peak = max(self.peak, total)


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def _pss(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except (psutil.Error, AttributeError):
        return 0
