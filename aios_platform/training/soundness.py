"""Whether a network keeps what every network must: checks of it as it is trained, on real rows.

They cost a few steps on a few rows. One that is broken is an error where answers would be wrong,
and is told and recorded where the network may only be poor.
"""

import logging
from typing import TYPE_CHECKING

import torch  # noqa: TID253
from torch import Tensor, nn  # noqa: TID253

from aios_platform.contracts.models import NetworkCheck
from aios_platform.errors import TrainingError

if TYPE_CHECKING:
    from aios_platform.training.data import Rows
    from aios_platform.training.fit import Plan

ROWS = 32
"""Rows of the small batch: enough for every kind of input to vary."""
STEPS = 40
RATE = 0.01
LEAST_FALL = 0.05
"""Part of its loss on a small batch that a network must lose by being trained on it alone."""
ALIKE = 1e-3
"""Largest difference, in units of the largest answer, between a row alone and among others."""
LARGEST_WEIGHT = 1e4

log = logging.getLogger(__name__)


def check_networks(plan: "Plan", networks: list[nn.Module]) -> tuple[NetworkCheck, ...]:
    """Check the declared network with fresh weights, and the trained ones.

    They are what Breck et al. (2017), "The ML Test Score", ask of a specification (infrastructure,
    test 2: it can learn) and of a trained model (monitoring, test 5: it is numerically stable).

    Args:
        plan: What the networks were trained on.
        networks: The trained ones, in evaluation mode.

    Returns:
        `learns`, `reached`, `rows_alone` and `bounded`, with what was observed.

    Raises:
        TrainingError: A row's answer depends on the rows beside it, or a weight is not finite.
    """
    few = min(ROWS, len(plan.train[-1]))
    # Spread over the rows, which lie in order of time.
    places = torch.linspace(0, len(plan.train[-1]) - 1, few, dtype=torch.float64).long()
    batch: Rows = tuple(array[places] for array in plan.train)
    with torch.random.fork_rng():
        fresh = plan.network(0)
        found = (
            *_learns(plan, fresh, batch),
            _rows_alone(networks, batch),
            _bounded(networks),
        )
    for check in found:
        if not check.held:
            log.warning("the check '%s' of the network did not hold: %s", check.name, check.says)
    return found


def _learns(plan: "Plan", network: nn.Module, batch: "Rows") -> tuple[NetworkCheck, ...]:
    """Overfit one small batch; of the first step, see which weights have a gradient."""
    *inputs, targets = batch
    # Without dropout: what is asked is whether the loss can fall, not how well it generalises.
    network.eval()
    weights = {name: w for name, w in network.named_parameters() if w.requires_grad}
    optimizer = torch.optim.Adam(weights.values(), lr=RATE)
    losses: list[float] = []
    unreached: list[str] = []
    for step in range(STEPS):
        optimizer.zero_grad()
        with torch.enable_grad():
            loss: Tensor = plan.objective.loss(network(*inputs), targets)
            loss.backward()
        if step == 0:
            unreached = [n for n, w in weights.items() if w.grad is None or not _finite(w.grad)]
        losses.append(float(loss.detach()))
        optimizer.step()
    first, least = losses[0], min(losses)
    fall = (first - least) / abs(first) if first else 0.0
    learns = NetworkCheck(
        name="learns",
        held=fall >= LEAST_FALL,
        observed=fall,
        bound=LEAST_FALL,
        says=f"{STEPS} steps on {len(targets)} rows took the loss from {first:.4f} to {least:.4f}.",
    )
    shown = ", ".join(unreached[:3])
    reached = NetworkCheck(
        name="reached",
        held=not unreached,
        observed=float(len(unreached)),
        bound=0.0,
        says=f"No finite gradient reaches {len(unreached)} of {len(weights)} weights: {shown}."
        if unreached
        else f"A finite gradient reaches each of {len(weights)} weights.",
    )
    return learns, reached


def _rows_alone(networks: list[nn.Module], batch: "Rows") -> NetworkCheck:
    """A row's answer must be the same alone, or it would depend on who asks at the same time."""
    *inputs, targets = batch
    worst = 0.0
    with torch.inference_mode():
        for network in networks:
            together = network(*inputs)
            alone = torch.cat(
                [network(*(array[n : n + 1] for array in inputs)) for n in range(len(targets))]
            )
            scale = max(1.0, float(together.abs().max()))
            worst = max(worst, float((together - alone).abs().max()) / scale)
    if not worst <= ALIKE:
        raise TrainingError(
            f"The network answers a row differently alone than among others, by {worst:.2g}: "
            "what it says of a row would depend on the rows that are asked at the same time.",
            remedy="Normalise over features, not over the rows of a batch, in evaluation mode.",
        )
    return NetworkCheck(
        name="rows_alone",
        held=True,
        observed=worst,
        bound=ALIKE,
        says=f"{len(targets)} rows are answered alike alone and together.",
    )


def _bounded(networks: list[nn.Module]) -> NetworkCheck:
    """Weights that explode are the first sign of a training that will not be finite much longer."""
    weights = [w.detach() for network in networks for w in network.state_dict().values()]
    numbers = [w for w in weights if w.is_floating_point() and w.numel()]
    largest = max((float(w.abs().max()) for w in numbers), default=0.0)
    if not all(_finite(w) for w in numbers):
        raise TrainingError(
            "A weight of the trained network is not finite.",
            remedy="Lower training.learning_rate, and look for extreme feature values.",
        )
    return NetworkCheck(
        name="bounded",
        held=largest <= LARGEST_WEIGHT,
        observed=largest,
        bound=LARGEST_WEIGHT,
        says=f"The largest of all weights is {largest:.4g}.",
    )


def _finite(values: Tensor) -> bool:
    return bool(torch.isfinite(values).all())
