"""The whole lifecycle of twelve months of flights, against one plain script that does the work.

Each round runs the platform in a fresh home and the script in fresh folders, one after the other,
each in a process of its own: the script once with what the platform checks on the way (the
comparison), and once without any check (what all of that costs). Printed: medians and ratios. The
targets are at most 1.5 times the checking script's wall time and 1.5 times its peak memory.

    python benchmarks/lifecycle.py [--rounds 3] [--keep]
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

HERE = Path(__file__).parent
BIN = Path(sys.executable).parent
PLATFORM = [str(BIN / "aios"), "run", "flight_delay", "--as-of", "2014-01-04"]
SCRIPT = [sys.executable, str(HERE / "bare_lifecycle.py")]
UNCHECKED = [*SCRIPT, "--no-checks"]
TIME_TARGET = MEMORY_TARGET = 1.5
MIB = 1 << 20


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


def measure(command: list[str], folder: Path) -> Measurement:
    """Run a command whose whole state lies in a folder."""
    log = folder.with_suffix(".log")
    watch = ServerWatch(folder)
    begin = time.perf_counter()
    with log.open("wb") as out:
        child = subprocess.Popen(
            command,
            env={**os.environ, "AIOS_HOME": str(folder)},
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


def main() -> None:
    """Measure all in turn and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--keep", action="store_true", help="keep what the runs wrote")
    options = parser.parse_args()
    # The embedded server's socket path must be short, and its folder readable by its own user.
    root = Path(tempfile.mkdtemp(prefix="aios-bench-"))
    root.chmod(0o755)
    contenders = {"platform": PLATFORM, "script": SCRIPT, "script, no checks": UNCHECKED}
    found: dict[str, list[Measurement]] = {name: [] for name in contenders}
    try:
        for number in range(options.rounds):
            # Who goes first alternates, so that a warm file cache favours neither.
            turns = list(contenders.items())
            for name, command in turns[::-1] if number % 2 == 0 else turns:
                folder = root / f"{name.replace(', ', '-').replace(' ', '-')}{number}"
                folder.mkdir(mode=0o755)
                given = command if name == "platform" else [*command, str(folder)]
                run = measure(given, folder)
                found[name].append(run)
                print(
                    f"round {number + 1} {name}: {run.seconds:.1f} s, {run.cpu:.1f} CPU s, "
                    f"peak {run.peak / MIB:.0f} MiB, server {run.server / MIB:.0f} MiB",
                    flush=True,
                )
                if not options.keep:
                    shutil.rmtree(folder, ignore_errors=True)
        for name, runs in found.items():
            print(f"\n--- last output of {name}\n{runs[-1].output.strip()}")
        print("\n" + table(found))
    finally:
        if not options.keep:
            shutil.rmtree(root, ignore_errors=True)


def table(found: dict[str, list[Measurement]]) -> str:
    """Medians and ratios as a Markdown table."""
    lines = [
        "| | platform | script | ratio | target | script, no checks | ratio |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for title, value, unit, target in [
        ("wall time", lambda m: m.seconds, "s", TIME_TARGET),
        ("CPU time", lambda m: m.cpu, "s", None),
        ("peak memory of the process", lambda m: m.peak / MIB, "MiB", MEMORY_TARGET),
        ("  with the embedded server", lambda m: (m.peak + m.server) / MIB, "MiB", None),
    ]:
        platform, script, unchecked = (
            statistics.median(value(run) for run in runs) for runs in found.values()
        )
        bound = f"≤ {target:g}" if target else ""
        lines.append(
            f"| {title} | {platform:,.1f} {unit} | {script:,.1f} {unit} | {platform / script:.2f} "
            f"| {bound} | {unchecked:,.1f} {unit} | {platform / unchecked:.2f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
