"""The `serving` section of a declaration: how a live model answers in real time."""

from enum import StrEnum
from itertools import pairwise
from typing import Annotated

from pydantic import Field, model_validator

from aios_platform.contracts.policy import Share, Task
from aios_platform.contracts.record import Record, nearest

Milliseconds = Annotated[float, Field(gt=0)]


class Unavailable(StrEnum):
    """What to do with a row for which a feature is missing or older than its view allows."""

    DEFAULT = "default"
    """Score it; the model takes the value as missing, as it did in training."""
    REFUSE = "refuse"
    """Answer with an error."""
    FALLBACK = "fallback"
    """Let the next hop of the chain answer."""


class TierModel(StrEnum):
    """What a tier scores with."""

    FULL = "full"
    """The registered model itself."""
    INT8 = "int8"
    """The same, its weights and activations quantised to eight bits."""


class Privacy(StrEnum):
    """How confidential a request is; a tier answers up to the label that it is declared for."""

    PUBLIC = "public"
    INTERNAL = "internal"
    RESTRICTED = "restricted"


class Hop(StrEnum):
    """Who may answer when the live version cannot."""

    PREVIOUS = "previous"
    """The newest earlier champion that nothing speaks against."""
    SIMPLE = "simple"
    """A logistic model of what the caller sends, without the feature store."""
    DEFAULT = "default"
    """The declared safe default."""


class Band(Record):
    """Probabilities from `low` to `high`."""

    low: float = Field(ge=0, le=1, description="Least probability in it.")
    high: float = Field(ge=0, le=1, description="Greatest probability in it.")

    @model_validator(mode="after")
    def _ordered(self) -> "Band":
        if not self.low < self.high:
            raise ValueError(f"low ({self.low}) must be below high ({self.high})")
        return self


class EarlierContract(Record):
    """A request contract that callers may still use, in terms of the newest one."""

    version: int = Field(ge=1, description="Its number; smaller than the newest one's.")
    rename: dict[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}$")], str] = Field(
        default_factory=dict, description="Name in this contract → name in the newest."
    )
    defaults: dict[str, str | float | bool | None] = Field(
        default_factory=dict, description="Value of each newest input that this contract lacks."
    )


class Contract(Record):
    """What callers send: which version of it is the newest, and which earlier ones still work."""

    version: int = Field(default=1, ge=1, description="Raise it with every breaking change.")
    earlier: tuple[EarlierContract, ...] = Field(default=(), description="Still accepted.")
    optional: tuple[str, ...] = Field(
        default=(), description="Inputs that a caller may leave out: missing values then."
    )

    @model_validator(mode="after")
    def _older(self) -> "Contract":
        versions = [contract.version for contract in self.earlier]
        if len(set(versions)) != len(versions) or any(v >= self.version for v in versions):
            raise ValueError(
                f"earlier contracts {versions} must differ and be below version {self.version}"
            )
        return self


class Batching(Record):
    """How requests that arrive together are scored together."""

    max_rows: int = Field(default=64, ge=1, description="Most rows scored at once.")
    max_delay_ms: float = Field(
        default=0.0,
        ge=0,
        description="Longest wait for more rows while the model is idle; 0: none. While it is "
        "busy, rows gather anyway.",
    )
    queue_rows: int = Field(
        default=2048, ge=1, description="Rows that may wait; past them the answer is 429."
    )
    threads: int = Field(default=1, ge=1, description="Processor threads per scoring.")


class OnlinePolicy(Record):
    """How features are read from the online store, and what if they are not there."""

    missing: Unavailable = Field(
        default=Unavailable.DEFAULT,
        description="The entity has no value.",
    )
    stale: Unavailable = Field(
        default=Unavailable.DEFAULT, description="The value is older than its view's TTL."
    )
    unreachable: Unavailable = Field(
        default=Unavailable.FALLBACK,
        description="The store does not answer, and nothing read before is young enough.",
    )
    cache_seconds: float = Field(
        default=1.0, ge=0, description="For how long a value that was read is used again."
    )
    cache_entities: int = Field(
        default=100_000, ge=0, description="Entities whose values are kept, over all views."
    )


class Uncertainty(Record):
    """What is said about how sure an answer is."""

    coverage: float = Field(
        default=0.9,
        gt=0.5,
        lt=1,
        description="Share of rows whose true label is in the prediction set (split conformal).",
    )
    abstain: bool = Field(
        default=False,
        description="Abstain where the prediction set holds both labels: answer the safe default, "
        "marked so, and put the row on the review queue.",
    )
    abstain_band: Band | None = Field(
        default=None, description="Abstain where the probability lies within; instead of the set."
    )


class AnswerCache(Record):
    """Answers kept for equal feature values under the same model version."""

    entries: int = Field(default=0, ge=0, description="Most answers kept; 0: no cache.")
    ttl_seconds: float = Field(default=60.0, gt=0, description="For how long.")


class Tier(Record):
    """One way to score with a version; tiers are tried in their order."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,30}$", description="What replies call it.")
    model: TierModel = Field(default=TierModel.FULL, description="full or int8.")
    escalate: Band | None = Field(
        default=None,
        description="Probabilities between which the answer is unsure: the next tier scores it.",
    )
    latency_ms: Milliseconds | None = Field(
        default=None,
        description="Time that the tier is expected to take; passed over by requests with less.",
    )
    cost: float = Field(default=1.0, ge=0, description="Relative cost of a row.")
    privacy: Privacy = Field(
        default=Privacy.RESTRICTED, description="Most confidential request that it may answer."
    )


class Breaker(Record):
    """When a version is left alone for a while."""

    failures: int = Field(default=5, ge=1, description="Failed batches in a row that open it.")
    open_seconds: float = Field(default=10.0, gt=0, description="Until one batch is tried again.")


class Recording(Record):
    """What of the served traffic is kept for monitoring."""

    share: Share = Field(default=1.0, description="Share of requests, chosen by their id.")
    buffer_rows: int = Field(
        default=100_000,
        ge=1,
        description="Rows held until they are written; past them, lost and counted.",
    )
    skew_share: Share = Field(
        default=0.1,
        description="Share of a served feature's values that differ from the offline ones, above "
        "which it is an alert.",
    )
    skew_rows: int = Field(
        default=2_000, ge=100, description="Recorded rows of a window that skew is measured on."
    )


class ServiceLevel(Record):
    """Service level objective, over which an error budget is spent."""

    availability: float = Field(
        default=0.999, gt=0, lt=1, description="Share of requests answered without a server error."
    )
    latency_ms: Milliseconds = Field(default=100.0, description="A slower answer is a bad one.")
    latency_share: float = Field(
        default=0.99, gt=0, lt=1, description="Share of requests answered within `latency_ms`."
    )


class Price(Record):
    """What serving costs, for the figure per thousand inferences."""

    cpu_hour: float = Field(default=0.04, ge=0, description="One processor core for an hour.")
    currency: str = Field(default="USD", pattern="^[A-Z]{3}$", description="ISO 4217 code.")


class RolloutStep(Record):
    """One step of a canary."""

    share: float = Field(gt=0, le=1, description="Share of entities that the candidate answers.")
    minutes: float = Field(default=10.0, ge=0, description="Shortest time at this step.")
    requests: int = Field(default=200, ge=0, description="Fewest candidate requests at this step.")


class RolloutPolicy(Record):
    """How a candidate is brought to traffic (`aios rollout`)."""

    steps: tuple[RolloutStep, ...] = Field(
        default=(RolloutStep(share=0.01), RolloutStep(share=0.1), RolloutStep(share=0.5)),
        min_length=1,
        description="Steps of a canary, in rising shares; after the last it is promoted.",
    )
    shadow_rows: int = Field(
        default=500, ge=1, description="Mirrored rows after which a shadow is judged."
    )
    max_error_rate: float = Field(
        default=0.01, ge=0, lt=1, description="Candidate errors above the live version's."
    )
    max_latency_ratio: float = Field(
        default=1.5,
        gt=1,
        description="Candidate's mean latency, in multiples of the live one's.",
    )
    max_difference: float = Field(
        default=0.05,
        gt=0,
        description="Difference of the mean prediction between the two: of the probability, of "
        "the likeliest class's, or of a regression's value, in the label's unit.",
    )
    alpha: float = Field(
        default=0.01, gt=0, lt=0.5, description="Chance that a guard stops a harmless candidate."
    )

    @model_validator(mode="after")
    def _rising(self) -> "RolloutPolicy":
        shares = [step.share for step in self.steps]
        if any(not before < after for before, after in pairwise(shares)):
            raise ValueError(f"the shares of the steps must rise; they are {shares}")
        return self


class Serving(Record):
    """How the live model answers in real time."""

    contract: Contract = Field(default=Contract(), description="What callers send.")
    max_rows: int = Field(default=10_000, ge=1, description="Most rows in a request.")
    max_body_mib: float = Field(default=16.0, gt=0, description="Largest request body, MiB.")
    deadline_ms: Milliseconds = Field(
        default=1000.0, description="A request is answered by then, or not computed any more."
    )
    batching: Batching = Field(default=Batching(), description="Micro-batches.")
    features: OnlinePolicy = Field(default=OnlinePolicy(), description="Online features.")
    uncertainty: Uncertainty = Field(default=Uncertainty(), description="Confidence, abstention.")
    safe_default: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Probability that is answered, marked as such, when nothing else can be.",
    )
    cache: AnswerCache = Field(default=AnswerCache(), description="Answers kept.")
    tiers: tuple[Tier, ...] = Field(
        default=(Tier(name="full"),), min_length=1, description="Ways to score, in their order."
    )
    fallback: tuple[Hop, ...] = Field(
        default=(Hop.PREVIOUS, Hop.SIMPLE, Hop.DEFAULT),
        description="Who answers when the live version cannot, in this order.",
    )
    breaker: Breaker = Field(default=Breaker(), description="When a version is left alone.")
    record: Recording = Field(default=Recording(), description="What is kept for monitoring.")
    slo: ServiceLevel = Field(default=ServiceLevel(), description="Service level objective.")
    price: Price = Field(default=Price(), description="What serving costs.")
    rollout: RolloutPolicy = Field(default=RolloutPolicy(), description="How candidates go live.")

    @model_validator(mode="after")
    def _consistent(self) -> "Serving":
        names = [tier.name for tier in self.tiers]
        if len(set(names)) != len(names):
            raise ValueError(f"two tiers have one name: {names}")
        if self.tiers[-1].escalate is not None:
            raise ValueError(f"the last tier, '{names[-1]}', has no next one to escalate to")
        order = [hop for hop in Hop if hop in self.fallback]
        if list(self.fallback) != order:
            raise ValueError(
                f"fallback must name hops once and in the order {', '.join(order)}; it is "
                f"{', '.join(self.fallback)}"
            )
        abstains = self.uncertainty.abstain or self.uncertainty.abstain_band is not None
        if abstains and self.safe_default is None:
            raise ValueError("a model that may abstain needs a safe_default to answer")
        return self

    def check_task(self, task: Task) -> None:
        """Check that nothing is declared that only a probability can have.

        Raises:
            ValueError: Something is.
        """
        if task == "binary_classification":
            return
        kind = task.replace("_", " ")
        for name, declared, why in (
            ("safe_default", self.safe_default is not None, "is one probability"),
            ("uncertainty.abstain", self.uncertainty.abstain, "needs sets of two labels"),
            (
                "uncertainty.abstain_band",
                self.uncertainty.abstain_band is not None,
                "is a band of one probability",
            ),
            (
                "tiers.escalate",
                any(tier.escalate is not None for tier in self.tiers),
                "is a band of one probability",
            ),
        ):
            if declared:
                raise ValueError(
                    f"serving.{name} {why}, which a model of {kind} does not answer: leave it out"
                )

    def check_inputs(self, names: frozenset[str]) -> None:
        """Check that contracts name inputs that there are.

        Raises:
            ValueError: One does not.
        """
        for contract in self.contract.earlier:
            for name in (*contract.rename.values(), *contract.defaults):
                if name not in names:
                    raise ValueError(
                        f"serving.contract.earlier version {contract.version} names the input "
                        f"'{name}'. {nearest(name, names)}"
                    )
        for name in self.contract.optional:
            if name not in names:
                raise ValueError(
                    f"serving.contract.optional names the input '{name}'. {nearest(name, names)}"
                )
