"""Tables and the plot of the gateway's benchmark, from its figures."""

import json
import statistics
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from gateway_models import INPUTS

IMAGES = Path(__file__).parents[1] / "docs" / "images"
FIGURES, PLOT = IMAGES / "gateway.json", IMAGES / "gateway.png"
README = Path(__file__).parent / "README.md"
BEGIN, END = "<!-- written by gateway.py --write -->\n", "<!-- end -->"
OURS, LIMIT = "ours", "no-op on uvicorn"
LEVELS = ("1", "16", "64")
MOST = LEVELS[-1]
# Name → least ratio of rates to be reached, at which numbers of connections.
RATIOS: dict[str, dict[str, float]] = {
    LIMIT: {MOST: 0.6},
    "mosec": {"1": 2.0, MOST: 0.8},
    "naive FastAPI": {MOST: 3.0},
    "MLServer": {MOST: 8.0},
    "KServe": {MOST: 8.0},
    "MLflow": {MOST: 20.0},
    "BentoML": {MOST: 20.0},
    "LitServe": {MOST: 20.0},
}
BATCHING, INT8, COLUMNS, SWAP = 2.5, 1.8, 5.0, 2.0


def tables(found: dict[str, Any]) -> str:
    """Every table, as Markdown."""
    parts = [_rates(found), _latencies(found), _alone(found), _others(found), _targets(found)]
    failed = sum(
        cell["failed"]
        for levels in found["closed"].values()
        for cells in levels.values()
        for cell in cells
    )
    parts.append(
        f"{found['rounds']} rounds of {found['seconds']:g} s on {found['cores']} cores, whose load "
        f"average was {found['load']:.1f} before; {failed:.0f} requests of the closed loops "
        f"failed; the client used at most {_busiest(found):.0%} of a core."
    )
    return "\n\n".join(parts)


def write(found: dict[str, Any]) -> None:
    """Put the tables into the README, the figures and the plot beside it."""
    FIGURES.write_text(json.dumps(found, indent=1) + "\n")
    before, _, rest = README.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    README.write_text(f"{before}{BEGIN}{tables(found)}\n{END}{after}")
    plot(found)


def multiply_adds(hidden: Sequence[int]) -> int:
    """Multiply-adds of a row in a network of dense layers."""
    return sum(into * out for into, out in pairwise([len(INPUTS), *hidden, 1]))


def plot(found: dict[str, Any]) -> None:
    """Rates of all servers, and their p99 at the same offered load."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    names = sorted(found["closed"], key=lambda name: _median(found, name, MOST, "rate"))
    figure = Figure(figsize=(9.2, 4.0), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    places = range(len(names))
    for level, offset in zip(LEVELS, (-0.27, 0.0, 0.27), strict=True):
        left.barh(
            [place + offset for place in places],
            [_median(found, name, level, "rate") for name in names],
            height=0.25,
            label=f"{level} connection{'s' if level != '1' else ''}",
        )
    left.set_yticks(list(places), [name if name != OURS else "the gateway" for name in names])
    left.set_xscale("log")
    left.set_xlabel("single rows per processor second")
    left.legend(frameon=False, fontsize=8, loc="lower right")
    for offered, marker in zip(found["open"], ("o", "s"), strict=True):
        shown = [place for place in places if names[place] in offered["cells"]]
        right.plot(
            [_of(offered["cells"][names[place]], "p99") for place in shown],
            shown,
            marker,
            markersize=5,
            label=f"{offered['rate']:,.0f} requests a second",
        )
    right.set_xscale("log")
    right.xaxis.set_major_formatter("{x:g}")
    right.xaxis.set_minor_formatter(NullFormatter())
    right.set_xlabel("p99 latency at the same offered load, ms")
    right.grid(axis="y", linewidth=0.3)
    right.legend(frameon=False, fontsize=8)
    for axes in (left, right):
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    figure.savefig(PLOT, metadata={"Software": None})


def _rates(found: dict[str, Any]) -> str:
    lines = [
        "| single rows per CPU second | 1 | 16 | 64 | ours / this: 1 | 16 | 64 "
        "| p50, p99 at 64, ms |",
        "|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    for name in found["closed"]:
        rates = [f"{_median(found, name, level, 'rate'):,.0f}" for level in LEVELS]
        ratios = [f"{_ratio(found, name, level):.2f}" for level in LEVELS]
        p50, p99 = (_median(found, name, MOST, each) for each in ("p50", "p99"))
        lines.append(f"| {name} | {' | '.join([*rates, *ratios])} | {p50:.2f}, {p99:.2f} |")
    beside = statistics.median(cell["beside"] for cell in found["closed"][OURS][MOST])
    lines.append(f"\nPostgres spends {beside:.0%} of ours beside it on the records, at {MOST}.")
    return "\n".join(lines)


def _latencies(found: dict[str, Any]) -> str:
    low, high = found["open"]
    lines = [
        f"| open loop | {low['rate']:,.0f}/s: p50, ms | p99 | failed "
        f"| {high['rate']:,.0f}/s: p50, ms | p99 | failed |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name in low["cells"]:
        cells = [
            f"{_of(o['cells'][name], 'p50'):.2f} | {_of(o['cells'][name], 'p99'):.2f} | "
            f"{sum(cell['failed'] for cell in o['cells'][name])}"
            if name in o["cells"]
            else "| | "
            for o in (low, high)
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _alone(found: dict[str, Any]) -> str:
    rates = ", ".join(f"{found['onnx'][level]:,.0f} in batches of {level}" for level in LEVELS)
    return f"ONNX Runtime alone, rows per CPU second: {rates}."


def _others(found: dict[str, Any]) -> str:
    lines = ["| ours, per CPU second | requests |", "|---|---:|"]
    labels = {
        "heavy": f"{found['heavy'] / 1e6:.1f} million multiply-adds, batches of up to 64",
        "heavy_single": "the same, one by one",
        "heavy_int8": "the same, int8, batches of up to 64",
    }
    for name, label in labels.items():
        lines.append(f"| {label} | {_of(found['ways'][name], 'rate'):,.0f} |")
    for name, label in (("json", "100 rows as JSON"), ("arrow", "100 rows as Arrow")):
        lines.append(f"| {label} | {_of(found['bodies'][name], 'rate'):,.0f} |")
    lost, swap = found["int8"], found["swap"]
    whole, model = 1e6 / _of(found["bodies"]["json"], "rate"), 100e6 / found["onnx"][MOST]
    lines += [
        "",
        f"A request of 100 rows as JSON costs {whole:,.0f} µs, of which ONNX Runtime alone takes "
        f"{model:,.0f}: a body that cost nothing would be {whole / model:.1f} times as fast.",
        "int8 on 20,000 rows labelled by the full model's probabilities: ROC AUC "
        f"{lost['auc']:.4f} less {lost['auc_loss']:.4f}, log loss more by "
        f"{lost['log_loss_gain']:.5f}; largest difference of a probability {lost['largest']:.3f}.",
        f"{swap['swaps']:.0f} promotions at {swap['rate']:,.0f} requests a second: "
        f"{swap['failed']:.0f} of {swap['answered'] + swap['failed']:,.0f} requests failed; p99 "
        f"{swap['during_p99']:.2f} ms from a promotion until its version answers "
        f"({swap['seconds']:.2f} s), {swap['before_p99']:.2f} ms otherwise; the slowest took "
        f"{swap['during_max']:.1f} ms.",
    ]
    return "\n".join(lines)


def _targets(found: dict[str, Any]) -> str:
    lines = ["| target | found | |", "|---|---:|---|"]
    for what, value, wanted, good in _judged(found):
        lines.append(f"| {what}: {wanted} | {value} | {'met' if good else '**missed**'} |")
    return "\n".join(lines)


def _judged(found: dict[str, Any]) -> Iterator[tuple[str, str, str, bool]]:
    for name, levels in RATIOS.items():
        for level, least in levels.items():
            if name in found["closed"]:
                ratio = _ratio(found, name, level)
                what = f"rate over that of {name} at {level}"
                yield what, f"{ratio:.2f}", f"{least:g}", ratio >= least
    for offered in found["open"]:
        ours = _of(offered["cells"][OURS], "p99") if OURS in offered["cells"] else float("inf")
        others = {
            name: _of(cells, "p99")
            for name, cells in offered["cells"].items()
            if name not in (OURS, LIMIT)
        }
        if others:
            best = min(others, key=lambda name: others[name])
            what = f"p99 at {offered['rate']:,.0f} requests a second"
            wanted = f"below {others[best]:.2f} ms ({best})"
            yield what, f"{ours:.2f} ms", wanted, ours < others[best]
    ways, bodies, swap = found["ways"], found["bodies"], found["swap"]
    for what, above, below, least in (
        ("heavy model, batches over none", ways["heavy"], ways["heavy_single"], BATCHING),
        ("heavy model, int8 over full", ways["heavy_int8"], ways["heavy"], INT8),
        ("100 rows, Arrow over JSON", bodies["arrow"], bodies["json"], COLUMNS),
    ):
        ratio = _of(above, "rate") / _of(below, "rate")
        yield f"rate: {what}", f"{ratio:.2f}", f"{least:g}", ratio >= least
    yield "failed requests in swaps", f"{swap['failed']:.0f}", "0", not swap["failed"]
    slower = swap["during_p99"] / swap["before_p99"]
    yield "p99 in swaps over otherwise", f"{slower:.2f}", f"at most {SWAP:g}", slower <= SWAP


def _median(found: dict[str, Any], name: str, level: str, figure: str) -> float:
    return _of(found["closed"][name][level], figure)


def _ratio(found: dict[str, Any], name: str, level: str) -> float:
    return _median(found, OURS, level, "rate") / _median(found, name, level, "rate")


def _of(cells: Sequence[dict[str, float]], figure: str) -> float:
    return statistics.median(cell[figure] for cell in cells)


def _busiest(found: dict[str, Any]) -> float:
    return max(
        cell["client"]
        for levels in found["closed"].values()
        for cells in levels.values()
        for cell in cells
    )
