"""A replayed year of flights, against one plain script that does the same work month by month.

Each round runs `aios replay` in a fresh home and the script (`bare_replay.py`) in a fresh folder,
one after the other, each in a process of its own. Printed: medians and ratios, what the live model
came to beside the two yardsticks, and the targets. With `--tiled 10` instead: the platform's own
replay of the first months (`--to`), without yardsticks, on its flights and on ten times as many
(`tiled_flights.py`).

    python benchmarks/replay.py [--rounds 3] [--keep] [--no-yardsticks]
    python benchmarks/replay.py --tiled 10 [--to 2013-05]
"""

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from measuring import BIN, MIB, Measurement, measure

from aios_platform.contracts.replays import Replay

HERE = Path(__file__).parent
PLATFORM = [str(BIN / "aios"), "replay", "flight_delay", "--from", "2013-01", "--to", "2013-12"]
SCRIPT = [sys.executable, str(HERE / "bare_replay.py")]
TILED = [sys.executable, "-W", "ignore", str(HERE / "tiled_flights.py")]
RESULT = Path("artifacts/replays/flight_delay/result.json")
TIME_TARGET = 1.5
NEAR_EVERY = 0.003
TILED_TIME_TARGET, TILED_MEMORY_TARGET = 12.0, 2.0
FIGURES: list[tuple[str, Callable[[Measurement], float], str]] = [
    ("wall time", lambda m: m.seconds, "s"),
    ("CPU time", lambda m: m.cpu, "s"),
    ("peak memory of the process", lambda m: m.peak / MIB, "MiB"),
    ("  with the embedded server", lambda m: (m.peak + m.server) / MIB, "MiB"),
]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--keep", action="store_true", help="keep what the runs wrote")
    parser.add_argument("--yardsticks", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--tiled", type=int, help="so many times the flights")
    parser.add_argument("--to", default="2013-05", help="last month of the tiled replay")
    options = parser.parse_args()
    with scratch(keep=options.keep) as root:
        if options.tiled:
            tiled(root, options.tiled, options.to)
        else:
            side_by_side(root, options.rounds, yardsticks=options.yardsticks, keep=options.keep)


@contextmanager
def scratch(*, keep: bool) -> Iterator[Path]:
    """A folder for the homes."""
    # The embedded server's socket path must be short, and its folder readable by its own user.
    root = Path(tempfile.mkdtemp(prefix="aios-bench-"))
    root.chmod(0o755)
    try:
        yield root
    finally:
        if keep:
            print(f"kept: {root}")
        else:
            shutil.rmtree(root, ignore_errors=True)


def side_by_side(root: Path, rounds: int, *, yardsticks: bool, keep: bool) -> None:
    """The platform and the script in turn."""
    without = [] if yardsticks else ["--no-yardsticks"]
    contenders = {"platform": [*PLATFORM, *without], "script": [*SCRIPT, *without]}
    found: dict[str, list[Measurement]] = {name: [] for name in contenders}
    results: list[Replay] = []
    for number in range(rounds):
        # Who goes first alternates, so that a warm file cache favours neither.
        turns = list(contenders.items())
        for name, command in turns[::-1] if number % 2 == 0 else turns:
            folder = root / f"{name}{number}"
            folder.mkdir(mode=0o755)
            run = measure(command if name == "platform" else [*command, str(folder)], folder)
            found[name].append(run)
            print(f"round {number + 1} {name}: {run}", flush=True)
            if name == "platform":
                results.append(Replay.model_validate_json((folder / RESULT).read_bytes()))
            if not keep:
                shutil.rmtree(folder, ignore_errors=True)
    script = json.loads(found["script"][-1].output.strip().splitlines()[-1])
    print(f"\nThe script's phases: {script['phases']}")
    print(f"The script trained after {', '.join(script['trained_after'])}: {script['told']}")
    print("\n" + table(found, {"wall time": TIME_TARGET}))
    print("\n" + arms(results[-1], script))
    if yardsticks:
        print("\n" + quality(results[-1]))
    if len({result.digest for result in results}) > 1:
        print("\nThe replays differ: " + ", ".join(result.digest[:12] for result in results))


def table(found: dict[str, list[Measurement]], targets: dict[str, float]) -> str:
    """Medians and the ratio of the first contender to the second, as a Markdown table."""
    (one, first), (other, second) = found.items()
    lines = [f"| | {one} | {other} | ratio | target |", "|---|---:|---:|---:|---:|"]
    for title, value, unit in FIGURES:
        a, b = (statistics.median(value(run) for run in runs) for runs in (first, second))
        bound = targets.get(title)
        told = "" if bound is None else f"≤ {bound:g}, {_met(a / b <= bound)}"
        lines.append(f"| {title} | {a:,.1f} {unit} | {b:,.1f} {unit} | {a / b:.2f} | {told} |")
    return "\n".join(lines)


def arms(result: Replay, script: dict) -> str:
    """ROC AUC of the live model and of both yardsticks, month by month."""
    lines = [
        "| window | live | trained through | never | every | live - never (95 %) "
        "| live - every (95 %) | decision | script's live |",
        "|---|---:|---|---:|---:|---|---|---|---:|",
    ]
    for window in result.windows:
        own = window.live or window.afterwards
        if own is None:
            continue
        never, every = (
            f"{figure.value:.4f}" if figure else "" for figure in (window.never, window.every)
        )
        gains = [
            f"{gain.value:+.4f} ({gain.low:+.4f} to {gain.high:+.4f})" if gain else ""
            for gain in (window.against_never, window.against_every)
        ]
        decision = f"{window.decision.action}: {window.decision.cause}" if window.decision else ""
        note = "" if window.live else " (afterwards)"
        lines.append(
            f"| {window.window} | {own.value:.4f}{note} | {own.trained_through} "
            f"| {never} | {every} "
            f"| {gains[0]} | {gains[1]} | {decision} | {script['live'].get(window.window, '')} |"
        )
    return "\n".join(lines)


def quality(result: Replay) -> str:
    """What the loop gained, beside its targets."""
    never, every = result.against_never, result.against_every
    if never is None or every is None:
        return "No window was scored by a live model."
    fewer = result.trainings < result.trainings_every
    return "\n".join(
        [
            f"live - never: {never.value:+.4f} ({never.low:+.4f} to {never.high:+.4f}) over "
            f"{never.windows} windows; target > 0 with significance, {_met(never.low > 0)}",
            f"live - every: {every.value:+.4f} ({every.low:+.4f} to {every.high:+.4f}); target "
            f"≥ {-NEAR_EVERY:g}, {_met(every.value >= -NEAR_EVERY)}",
            f"retrainings: {result.trainings} of {result.trainings_every}; target fewer, "
            f"{_met(fewer)}",
            f"training seconds: {result.training_seconds:.1f} of "
            f"{result.training_seconds_every:.1f}; yardsticks {result.yardstick_seconds:.1f} s of "
            f"the whole; digest {result.digest[:16]}",
        ]
    )


def tiled(root: Path, times: int, last: str) -> None:
    """The platform's replay of the first months, at several sizes."""
    found: dict[str, list[Measurement]] = {}
    for tiles in (times, 1):
        folder = root / f"tiles{tiles}"
        folder.mkdir(mode=0o755)
        run = measure([*TILED, "--to", last], folder, {"TILES": str(tiles)})
        found[f"{tiles} x the flights"] = [run]
        print(f"{tiles} x: {run}\n{run.output.strip()}\n", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
    targets = {"wall time": TILED_TIME_TARGET, "peak memory of the process": TILED_MEMORY_TARGET}
    print(f"January to {last}, without yardsticks\n\n" + table(found, targets))


def _met(met: bool) -> str:
    return "reached" if met else "not reached"


if __name__ == "__main__":
    main()
