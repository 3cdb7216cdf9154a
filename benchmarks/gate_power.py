"""Error rates of the gate, by simulation: how often does it promote what it should not, or should?

    python benchmarks/gate_power.py [--quick] [--rounds N] [--write]

Every round makes an exam, a champion and a candidate whose true ROC AUCs are known, and asks the
real gate (`promotion.gate.examine`) with its default policy (primary metric with its margin,
guards, a slice per window, cost, fidelity), to which a floor and slices by a column are added; only
the number of resamples is lowered. Counted is how often it promotes, how often it rejects, and how
often the rule `non_inferior` passes by itself.

The models: within either class the scores of champion and candidate are bivariate normal with an
assumed correlation of 0.97, which makes both true AUCs exact; each model answers with the true
probability given its own score, so both are calibrated. Labels are drawn with a base rate of 0.22.

A second experiment asks which calibration guard keeps its promise: a candidate like the champion,
but with probabilities that are too high, by exactly the margin and by more, or not at all.

`--write` puts the table and the plot into docs/images/ and docs/gate_power.md.
"""

import argparse
import math
import os
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from statistics import NormalDist

import numpy as np

from aios_platform.contracts.decisions import Decision, Outcome
from aios_platform.contracts.evidence import Evidence, OnlineParity, Operation
from aios_platform.contracts.policy import Gate, Slice
from aios_platform.promotion.exam import Contender, Exam
from aios_platform.promotion.gate import examine
from aios_platform.promotion.statistics import non_inferiority
from aios_platform.resampling import gain_interval

DOCS = Path(__file__).parents[1] / "docs"
CHAMPION_AUC, CORRELATION, BASE_RATE = 0.77, 0.97, 0.22
RESAMPLES = 300
GATE = Gate(
    resamples=RESAMPLES,
    floors={"roc_auc": 0.7},
    slices=(Slice(column="window"), Slice(column="origin")),
)
ALPHA = (1 - GATE.confidence) / 2
WINDOWS, ORIGINS = ("2013-10", "2013-11", "2013-12"), ("EWR", "JFK", "LGA")
DIFFERENCES = (-2 * GATE.margin, -GATE.margin, -GATE.margin / 2, 0.0, GATE.margin / 2, GATE.margin)
# Rows of an exam, and rounds for each true difference: large exams are slow to judge.
ROUNDS = {2_000: 120, 8_000: 60, 28_000: 16}
QUICK = {2_000: 24, 8_000: 8}
# The error that is promised is that at the margin; it is small, and takes more rounds to measure.
MORE_AT_THE_MARGIN = 3
CALIBRATION_ROWS = (2_000, 8_000)
OFF = 0.02
CALIBRATION_GUARDS = (("ece", OFF), ("ece_debiased", OFF), ("reliability", OFF**2))
CALIBRATION_SHIFTS = (0.0, OFF, 1.5 * OFF)
SOUND = Evidence(
    candidate=Operation(latency_p95_ms=0.2, size_bytes=200_000),
    champion=Operation(latency_p95_ms=0.2, size_bytes=200_000),
    onnx_parity=1e-7,
    online_parity=OnlineParity(cells=500, different=0),
    provenance_missing=(),
    exam_drift={"distance": 0.01},
    leakage_cells=4000,
    shared_rows=(),
)


def main() -> None:
    """Simulate, print the tables, and write them and the plot when asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="few rounds, small exams: a smoke test"
    )
    parser.add_argument("--rounds", type=float, default=1.0, help="multiplies the rounds")
    parser.add_argument("--write", action="store_true", help="update docs/")
    arguments = parser.parse_args()
    began = time.perf_counter()
    sizes = {
        rows: max(2, round(count * arguments.rounds))
        for rows, count in (QUICK if arguments.quick else ROUNDS).items()
    }
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        power = decisions(pool, sizes)
        guards = calibration_guards(pool, max(2, sizes[2_000] // 3))
    text = tables(power, guards) + (
        f"\n{sum(cell['rounds'] for cell in power):,} exams were judged.\n"
    )
    print(text)
    print(f"{time.perf_counter() - began:.0f} s")
    if arguments.write:
        (DOCS / "images").mkdir(exist_ok=True)
        (DOCS / "gate_power.md").write_text(HEAD + text)
        plot(power, DOCS / "images" / "gate_power.png")


def decisions(pool: ProcessPoolExecutor, sizes: dict[int, int]) -> list[dict]:
    """What the gate decides, for every size of the exam and every true difference."""
    jobs = [
        (rows, difference, seeds)
        for rows, rounds in sizes.items()
        for difference in DIFFERENCES
        for count in (rounds * (MORE_AT_THE_MARGIN if at_margin(difference) else 1),)
        for seeds in np.array_split(np.arange(count), min(count, 10))
    ]
    # The large exams first, so that no core idles at the end.
    jobs.sort(key=lambda job: -job[0])
    counted: dict[tuple, Counter] = {}
    for (rows, difference, seeds), found in zip(jobs, pool.map(_judge_some, jobs), strict=True):
        cell = counted.setdefault((rows, difference), Counter())
        cell.update(found)
        cell["rounds"] += len(seeds)
    return [
        {"rows": rows, "difference": difference, **counted[rows, difference]}
        for rows in sizes
        for difference in DIFFERENCES
    ]


def at_margin(difference: float) -> bool:
    """Whether a true difference is the largest loss that the gate must not promote."""
    return math.isclose(difference, -GATE.margin)


def _judge_some(job) -> Counter:
    rows, difference, seeds = job
    found = Counter()
    for seed in seeds:
        verdict = judge(rows, difference, int(seed))
        found[verdict.decision.value] += 1
        outcome = next(r.outcome for r in verdict.rules if r.rule == "non_inferior")
        found[f"primary_{outcome.value}"] += 1
    return found


def judge(rows: int, difference: float, seed: int):
    """One exam, one champion, one candidate, one verdict."""
    # The difference takes part, so that cells of the table are independent.
    generator = np.random.default_rng([rows, round(1e6 * (1 + difference)), seed])
    labels, champion, candidate = contest(generator, rows, difference)
    ids = [f"{seed}-{row}" for row in range(rows)]
    windows = generator.choice(WINDOWS, rows)
    exam = Exam(
        row_ids=ids,
        labels=labels,
        windows=WINDOWS,
        row_windows=windows,
        columns={"origin": generator.choice(ORIGINS, rows)},
    )
    contenders = [
        Contender(version, ids, scores, "2013-09", digest=version * 64)
        for version, scores in (("1", champion), ("2", candidate))
    ]
    return examine(
        model="simulated",
        gate=GATE,
        exam=exam,
        candidate=contenders[1],
        champion=contenders[0],
        evidence=SOUND,
        decided_at=datetime(2014, 1, 1, tzinfo=UTC),
    )


def contest(generator: np.random.Generator, rows: int, difference: float):
    """Labels, and the probabilities of a champion and of a candidate that is so much better."""
    labels = generator.random(rows) < BASE_RATE
    shared = generator.normal(size=rows)
    own = CORRELATION * shared + math.sqrt(1 - CORRELATION**2) * generator.normal(size=rows)
    champion = probability(shared, labels, CHAMPION_AUC)
    return labels, champion, probability(own, labels, CHAMPION_AUC + difference)


def probability(noise, labels, auc: float):
    """The true probability given a score that is normal in either class, with this true AUC."""
    apart = math.sqrt(2) * NormalDist().inv_cdf(auc)
    logit = math.log(BASE_RATE / (1 - BASE_RATE)) + apart * (noise + apart * labels) - apart**2 / 2
    return 1 / (1 + np.exp(-logit))


def calibration_guards(pool: ProcessPoolExecutor, rounds: int) -> list[dict]:
    """How often each guard clears a candidate that is off by so much."""
    jobs = [
        (rows, shift, seeds)
        for rows in CALIBRATION_ROWS
        for shift in CALIBRATION_SHIFTS
        for seeds in np.array_split(np.arange(rounds), min(rounds, 4))
    ]
    counted: dict[tuple, Counter] = {}
    for (rows, shift, _), found in zip(jobs, pool.map(_guard_some, jobs), strict=True):
        counted.setdefault((rows, shift), Counter()).update(found)
    return [
        {
            "guard": guard,
            "margin": margin,
            "rows": rows,
            "rounds": rounds,
            "cleared": [counted[rows, shift][guard] for shift in CALIBRATION_SHIFTS],
        }
        for guard, margin in CALIBRATION_GUARDS
        for rows in CALIBRATION_ROWS
    ]


def _guard_some(job) -> Counter:
    rows, shift, seeds = job
    found = Counter()
    for seed in seeds:
        labels, champion, candidate = contest(np.random.default_rng([rows, 77, seed]), rows, 0.0)
        for guard, margin in CALIBRATION_GUARDS:
            gain = gain_interval(
                guard, labels, np.minimum(candidate + shift, 1), champion,
                seed=int(seed), resamples=RESAMPLES, confidence=GATE.confidence,
            )  # fmt: skip
            found[guard] += non_inferiority(gain, margin) is Outcome.PASS
    return found


HEAD = f"""# Error rates of the gate

Made by `python benchmarks/gate_power.py --rounds 4 --write`; see there for how exams and models
are drawn. The declared alpha is {ALPHA:.3f}: the one side of a {GATE.confidence:.0%} interval.
± is one standard error of the simulation.

![Probability of promotion over the true difference](images/gate_power.png)

"""


def tables(power: list[dict], guards: list[dict]) -> str:
    """Both experiments as Markdown."""
    lines = [
        f"True ROC AUC of the champion {CHAMPION_AUC}, correlation {CORRELATION}, margin "
        f"{GATE.margin:g}, {len(WINDOWS) + len(ORIGINS)} slices with margin "
        f"{GATE.slice_margin:g}, guards {', '.join(GATE.guards)}, {RESAMPLES} resamples.",
        "",
        "| rows | true difference | promoted | rejected | inconclusive | `non_inferior` | rounds |",
        "|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for cell in power:
        rates = [
            share(cell.get(key, 0), cell["rounds"])
            for key in (
                Decision.PROMOTE, Decision.REJECT, Decision.INCONCLUSIVE, "primary_pass"
            )
        ]  # fmt: skip
        note = " (the margin)" if at_margin(cell["difference"]) else ""
        lines.append(
            f"| {cell['rows']:,} | {cell['difference']:+.4f}{note} | {' | '.join(rates)} "
            f"| {cell['rounds']:,} |"
        )
    null = [cell for cell in power if at_margin(cell["difference"])]
    promoted, rounds = (sum(c.get(key, 0) for c in null) for key in (Decision.PROMOTE, "rounds"))
    lone = sum(cell.get("primary_pass", 0) for cell in null)
    lines += [
        "",
        f"Worse by exactly the margin, all sizes: promoted {share(promoted, rounds)}, "
        f"`non_inferior` by itself {share(lone, rounds)}; declared at most {ALPHA:.3f}.",
        "",
        "Which calibration guard keeps its promise? The candidate is like the champion, but its "
        f"probabilities are all too high: by nothing, by exactly the margin ({OFF:g}), by "
        f"{1.5 * OFF:g}. Cleared at the margin should be at most {ALPHA:.3f}.",
        "",
        f"| guard | margin | rows | {' | '.join(f'off by {x:g}' for x in CALIBRATION_SHIFTS)} "
        "| rounds |",
        f"|---|---:|---:|{'---:|' * len(CALIBRATION_SHIFTS)}---:|",
    ]
    lines += [
        f"| `{cell['guard']}` | {cell['margin']:g} | {cell['rows']:,} "
        f"| {' | '.join(share(count, cell['rounds']) for count in cell['cleared'])} "
        f"| {cell['rounds']:,} |"
        for cell in guards
    ]
    return "\n".join(lines) + "\n"


def share(count: int, rounds: int) -> str:
    """A rate with its standard error, which is not 0 where nothing was seen (Agresti and Coull)."""
    padded = (count + 2) / (rounds + 4)
    return f"{count / rounds:.3f} ± {math.sqrt(padded * (1 - padded) / (rounds + 4)):.3f}"


def plot(power: list[dict], path: Path) -> None:
    """P(promote) over the true difference, one line for each size of the exam."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.8), dpi=110, layout="constrained")
    axes = figure.subplots()
    for rows in dict.fromkeys(cell["rows"] for cell in power):
        cells = [cell for cell in power if cell["rows"] == rows]
        rate = np.array([cell.get(Decision.PROMOTE, 0) / cell["rounds"] for cell in cells])
        error = np.sqrt(rate * (1 - rate) / np.array([cell["rounds"] for cell in cells]))
        axes.errorbar(
            [cell["difference"] for cell in cells], rate, yerr=2 * error, capsize=2, marker="o",
            markersize=4, label=f"{rows:,} rows",
        )  # fmt: skip
    axes.axvline(-GATE.margin, color="0.4", linestyle="--", linewidth=1)
    axes.axhline(ALPHA, color="0.4", linestyle=":", linewidth=1)
    axes.annotate("the margin", (-GATE.margin, 0.97), fontsize=8, ha="right", rotation=90, va="top")
    axes.annotate(
        f"declared alpha {ALPHA:g}", (axes.get_xlim()[1], ALPHA + 0.01), fontsize=8, ha="right"
    )
    axes.set_xlabel("true difference in ROC AUC, candidate less champion")
    axes.set_ylabel("probability of promotion")
    axes.set_ylim(-0.02, 1.02)
    axes.legend(frameon=False, fontsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(path, metadata={"Software": None})


if __name__ == "__main__":
    main()
