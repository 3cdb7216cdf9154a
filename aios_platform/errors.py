"""Every error the platform raises on purpose.

The tree::

    AiosError
    ├── SettingsError            an environment variable or a settings file is wrong
    ├── DeclarationError         a model's declaration is wrong
    ├── ExtensionError           a part that another package adds cannot be used
    ├── StoreError               a store cannot be reached or is not in the state we left it in
    │   ├── DatabaseUnavailable  Postgres does not answer
    │   ├── ArtifactMissing      an artifact that a record names is not there
    │   └── ArtifactCorrupt      the bytes of an artifact are not those that were written
    ├── DataError                data that arrived is not what was declared
    │   ├── SourceError          the source could not be read
    │   │   └── WindowNotDelivered  it has nothing of the window yet; asked for again later
    │   └── WindowRejected       a whole window is unusable; the last good one stays
    ├── FeatureError             a feature view, table or online read is wrong
    │   └── LeakageError         a feature knows what was not yet known
    ├── TrainingError            training did not give a usable model
    │   ├── TrainingDiverged     a loss is not finite
    │   └── ExportError          the ONNX graph does not reproduce the trained network
    ├── RegistryError            a model version cannot be registered, found or trusted
    ├── AccessDenied             who acts may not do this, or cannot be told
    ├── LedgerError              a row of the ledger cannot be written or found
    │   └── LedgerBroken         the hash chain does not hold
    ├── PromotionError           the swap of a champion was refused
    │   ├── ChampionConflict     somebody else promoted in between
    │   ├── ApprovalError        an approval is missing, or was refused
    │   └── WaiverError          a waiver that may not be granted
    ├── ScoringError             a window could not be scored
    ├── MetricError              labels and scores from which no metric can be computed
    ├── ServingError             the gateway cannot serve
    │   ├── RequestRefused       a request does not fit its contract, or may not be made
    │   ├── Overloaded           more is asked than can be answered; try again later
    │   ├── DeadlineExceeded     an answer would come too late, and was not computed
    │   └── VersionUnusable      a model version cannot be brought to traffic
    ├── RolloutError             a rollout cannot be started, changed or carried out
    ├── ReviewError              a row of the review queue is not there, or decided otherwise
    ├── AlertError               an output did not take an alert, or there is no such alert
    └── LifecycleError           a stage was asked for before what it needs exists

Every message says what happened, where, why, and what to do about it.
"""

import traceback


class AiosError(Exception):
    """Base of all errors of the platform.

    Args:
        what: What went wrong, with the place (file, table, column, window).
        remedy: What the reader can do about it, as an instruction.
    """

    def __init__(self, what: str, *, remedy: str = "") -> None:
        self.what = what
        self.remedy = remedy
        super().__init__(f"{what} {remedy}".strip())

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.what, self.remedy))


def _rebuild(kind: type[AiosError], what: str, remedy: str) -> AiosError:
    return kind(what, remedy=remedy)


def fault_of(error: Exception) -> str:
    """What kind of foreign error it is, and where it arose; its text may hold what is secret."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {place.name}, line {place.lineno}"


class SettingsError(AiosError):
    """An environment variable or a settings file is wrong."""


class DeclarationError(AiosError):
    """A model's declaration is wrong."""


class ExtensionError(AiosError):
    """A part that another installed package adds cannot be found, imported or used."""


class StoreError(AiosError):
    """A store cannot be reached or is not in the state we left it in."""


class DatabaseUnavailable(StoreError):
    """Postgres does not answer."""


class ArtifactMissing(StoreError):
    """An artifact that a record names is not there."""


class ArtifactCorrupt(StoreError):
    """The bytes of an artifact are not those that were written."""


class DataError(AiosError):
    """Data that arrived is not what was declared."""


class SourceError(DataError):
    """The source could not be read."""


class WindowNotDelivered(SourceError):
    """The source has nothing of the window yet. Sources raise it; it is asked for again later."""


class WindowRejected(DataError):
    """A whole window is unusable; the last good version stays current."""


class FeatureError(AiosError):
    """A feature view, feature table or online read is wrong."""


class LeakageError(FeatureError):
    """A feature knows what was not yet known at prediction time."""


class TrainingError(AiosError):
    """Training did not give a usable model."""


class TrainingDiverged(TrainingError):
    """A loss is not finite."""


class ExportError(TrainingError):
    """The ONNX graph does not reproduce the trained network."""


class RegistryError(AiosError):
    """A model version cannot be registered, found or trusted."""


class AccessDenied(AiosError):
    """Who acts may not do this, or cannot be told."""


class LedgerError(AiosError):
    """A row of the ledger cannot be written or found."""


class LedgerBroken(LedgerError):
    """The hash chain of the ledger does not hold."""


class PromotionError(AiosError):
    """The swap of a champion was refused."""


class ChampionConflict(PromotionError):
    """Another promotion changed the champion in between."""


class ApprovalError(PromotionError):
    """An approval is missing, or refused: replayed, expired, its author's, on other evidence."""


class WaiverError(PromotionError):
    """A waiver that may not be granted."""


class ScoringError(AiosError):
    """A window could not be scored."""


class MetricError(AiosError):
    """Labels and scores from which no metric can be computed."""


class ServingError(AiosError):
    """The gateway cannot serve."""


class RequestRefused(ServingError):
    """A request does not fit its contract, or may not be made.

    Args:
        what: What is wrong with it.
        code: Stable code of the problem (`docs/serving.md` lists them).
        remedy: What the caller can do.
    """

    def __init__(self, what: str, *, code: str = "invalid_request", remedy: str = "") -> None:
        super().__init__(what, remedy=remedy)
        self.code = code


class Overloaded(ServingError):
    """More is asked than can be answered; the caller tries again later.

    Args:
        what: What is full.
        code: Stable code of the problem (`docs/serving.md` lists them).
        retry_after: Seconds after which trying again makes sense.
        remedy: What the caller can do.
    """

    def __init__(
        self, what: str, *, code: str = "overloaded", retry_after: float = 1.0, remedy: str = ""
    ) -> None:
        super().__init__(what, remedy=remedy or "Try again later.")
        self.code = code
        self.retry_after = retry_after


class DeadlineExceeded(ServingError):
    """An answer would come too late, and was not computed."""


class VersionUnusable(ServingError):
    """A model version cannot be brought to traffic; the one before keeps serving."""


class RolloutError(AiosError):
    """A rollout cannot be started, changed or carried out."""


class ReviewError(AiosError):
    """A row of the review queue is not there, or was decided otherwise."""


class AlertError(AiosError):
    """An output did not take an alert, or there is no such alert."""


class LifecycleError(AiosError):
    """A stage was asked for before what it needs exists."""
