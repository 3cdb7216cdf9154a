"""The 28 tests of the ML Test Score (Breck et al. 2017), in our words, and the bands."""

from aios_platform.contracts.readiness import RubricTest, Section
from aios_platform.contracts.record import nearest
from aios_platform.errors import LedgerError

_ATTEST = (
    "A person checks it: `aios score attest MODEL {name} --evidence LINK --note TEXT "
    "--expires DATE`."
)
_RUN = "`aios run MODEL`"

# Sentence, and the command that leaves the evidence; "" where only a person can say.
_DATA = (
    ("What is expected of each column is written down and checked.", _RUN),
    ("Each feature helps the model.", f"{_RUN}; drop features that the importance calls useless."),
    ("No feature costs more than it brings.", ""),
    ("The features meet the policy: sources, purposes, rights.", ""),
    ("Personal data is guarded in the pipeline as it is at the source.", ""),
    ("A new feature can be added quickly.", ""),
    ("The code that makes the features is tested.", _RUN),
)
_MODEL = (
    ("The model's specification is reviewed and in a repository.", ""),
    ("The offline metric moves with what the model is for.", ""),
    ("The hyper-parameters were tuned.", "`aios tune MODEL`, then declare the best values."),
    ("What a stale model costs is known.", "`aios replay MODEL`"),
    ("A simpler model is not as good.", "`aios promote MODEL`; see its rule beats_linear."),
    ("Quality holds on the slices that matter.", "Declare gate.slices, then `aios promote MODEL`."),
    ("Groups of people are treated alike.", "Declare gate.protected, then `aios promote MODEL`."),
)
_INFRASTRUCTURE = (
    (
        "Training can be reproduced.",
        "`aios reproduce MODEL VERSION`, or start the schedule MODEL__reproduce_monthly",
    ),
    ("The model's specification is unit tested.", "`aios train MODEL`; its log has the checks."),
    ("The whole pipeline is tested from end to end.", "`aios replay MODEL`"),
    ("Quality is checked before a model serves.", _RUN),
    (
        "One example can be followed through the model step by step.",
        "`aios follow MODEL ROW`, then `aios score attest MODEL infrastructure_5 --help`",
    ),
    ("A model is tried on a part of the traffic first.", "`aios rollout MODEL start --help`"),
    ("A model can be rolled back.", "`aios rollback MODEL --reason ...`"),
)
_MONITORING = (
    ("A change in what the model depends on is told.", _RUN),
    ("What holds of the training data holds of what is scored.", _RUN),
    ("Training and serving compute the same features.",
     "`aios serve MODEL` with recording on, then `aios run MODEL`"),
    ("The model is not too stale.", _RUN),
    ("The model is numerically stable.", "`aios train MODEL`; its log has the checks."),
    ("Speed and memory of training and serving have not got worse.",
     "`aios train MODEL`, then `aios promote MODEL`"),
    ("The quality of the predictions has not got worse.", _RUN),
)  # fmt: skip


def _tests() -> tuple[RubricTest, ...]:
    parts = zip(Section, (_DATA, _MODEL, _INFRASTRUCTURE, _MONITORING), strict=True)
    return tuple(
        RubricTest(
            name=f"{section}_{number}",
            section=section,
            asks=asks,
            remedy=remedy or _ATTEST.format(name=f"{section}_{number}"),
        )
        for section, part in parts
        for number, (asks, remedy) in enumerate(part, start=1)
    )


RUBRIC = _tests()

# Upper end of each band, itself in the band, and what the paper says of it, in our words.
BANDS = (
    (0.0, "more of a research project than a system in production"),
    (1.0, "not untested, but the holes may be serious"),
    (2.0, "a first pass at production; more is needed"),
    (3.0, "reasonably tested; more of it could be automated"),
    (5.0, "strongly tested and monitored; fit for what is critical"),
    (7.0, "exceptionally tested and monitored"),
)


def band_of(score: float) -> str:
    """What a score means."""
    return next(text for top, text in BANDS if score <= top)


def require_test(name: str) -> RubricTest:
    """The test of this name.

    Raises:
        LedgerError: There is none.
    """
    names = {test.name: test for test in RUBRIC}
    if name not in names:
        raise LedgerError(
            f"'{name}' is not one of the 28 tests.",
            remedy=f"{nearest(name, names)} `aios score show MODEL` lists them.",
        )
    return names[name]
