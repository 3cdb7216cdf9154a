"""The whole lifecycle of twelve months of flights, against one plain script that does the work.

Each round runs the platform in a fresh home and the script in fresh folders, one after the other,
each in a process of its own: the script once with what the platform checks on the way (the
comparison), and once without any check (what all of that costs). Printed: medians and ratios. The
targets are at most 1.5 times the checking script's wall time and 1.5 times its peak memory.

    python benchmarks/lifecycle.py [--rounds 3] [--keep]
"""

import argparse
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from measuring import BIN, MIB, Measurement, measure

HERE = Path(__file__).parent
PLATFORM = [str(BIN / "aios"), "run", "flight_delay", "--as-of", "2014-01-04"]
SCRIPT = [sys.executable, str(HERE / "bare_lifecycle.py")]
UNCHECKED = [*SCRIPT, "--no-checks"]
TIME_TARGET = MEMORY_TARGET = 1.5


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
                print(f"round {number + 1} {name}: {run}", flush=True)
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
