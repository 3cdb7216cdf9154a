"""Judges one candidate: scores, evidence, the gate's verdict, its row, its documents.

The asset `verdict` and `aios promote` both call `judge`; there is no second way to a verdict.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from aios_platform.components.model_lifecycle.evidence import collect
from aios_platform.components.model_lifecycle.faults import without_faults
from aios_platform.components.model_lifecycle.handoff import Candidate, Judged
from aios_platform.components.model_lifecycle.names import Names
from aios_platform.components.model_lifecycle.samples import labelled_sample
from aios_platform.components.model_lifecycle.state import VERDICT, featured_keys, matured_keys
from aios_platform.contracts.datasets import DatasetVersion
from aios_platform.contracts.decisions import Champion, Verdict
from aios_platform.contracts.policy import LinearBaseline
from aios_platform.errors import AiosError, DatabaseUnavailable, RegistryError, ScoringError
from aios_platform.features.pinned_sets import recall

if TYPE_CHECKING:
    import pyarrow as pa

    from aios_platform.artifacts import ArtifactStore
    from aios_platform.contracts.evidence import Evidence
    from aios_platform.contracts.models import Provenance
    from aios_platform.inference.session import Session
    from aios_platform.promotion.exam import Contender, Exam
    from aios_platform.resources.stores import Stores


@dataclass(frozen=True)
class ExamFrames:
    """The stored windows that both contenders answer.

    Attributes:
        windows: Versions of labelled frames, oldest first; empty: there is no exam.
        service_digest: Digest of the feature service that made them.
    """

    windows: tuple[DatasetVersion, ...]
    service_digest: str


@dataclass(frozen=True)
class Judgement:
    """A verdict and what came with it.

    Attributes:
        judged: The verdict with its candidate; its row is 0 where nothing was recorded.
        evidence: What was measured.
        card: The model card, Markdown.
        documents: Digest and suffix of each stored document, by name.
    """

    judged: Judged
    evidence: "Evidence"
    card: str
    documents: dict[str, tuple[str, str]]


def recorded_exam(candidate: Candidate) -> ExamFrames:
    """The exam that was pinned together with the candidate's training set."""
    record = candidate.training_set
    return ExamFrames(record.exam, record.service_digest)


def newest_exam(
    names: Names, candidate: Candidate, stores: "Stores", as_of: datetime
) -> ExamFrames:
    """The last matured windows after the candidate's training, assembled where needed.

    Raises:
        ArtifactMissing: A window's tables are gone.
        FeatureError: The feature service is wrong.
    """
    from aios_platform.features.training_set import assemble

    declaration = names.declaration
    featured = featured_keys(names, stores.artifacts)
    later = [
        key
        for key in matured_keys(declaration, as_of)
        if key in featured and key > candidate.trained_through
    ]
    usable = without_faults(names, stores.artifacts, later)
    windows = [declaration.windows.window(key) for key in usable[-declaration.exam.windows :]]
    frames = assemble(declaration, windows, as_of, stores.artifacts, stores.features)
    return ExamFrames(frames.versions, frames.service_digest)


def judge(
    names: Names,
    candidate: Candidate,
    exam: ExamFrames,
    stores: "Stores",
    *,
    cause: str,
    key: str | None = None,
    record: bool = True,
    as_of: datetime | None = None,
) -> Judgement:
    """Score both contenders on the exam, measure, decide, and write it all down.

    Args:
        names: The model.
        candidate: The candidate.
        exam: The windows to answer.
        stores: Where everything is.
        cause: Why this happens; goes into the verdict's row.
        key: Idempotency key of the row; None: a new row each time.
        record: Whether to write the row, the documents and MLflow's tags; False: a dry run.
        as_of: The lifecycle's clock where it looks at the past: the verdict's time.

    Raises:
        DatabaseUnavailable: The ledger or MLflow does not answer: there is no verdict then.
        StoreError: The exam's rows cannot be read.
    """
    from aios_platform.ledger.champions import champion_of
    from aios_platform.ledger.waivers import active
    from aios_platform.promotion.card import model_card
    from aios_platform.promotion.gate import examine

    declaration, store = names.declaration, stores.artifacts
    champion = champion_of(stores.database, names.model)
    frame = _exam_frame(names, store, exam)
    own, session = _contender(names, store, frame, candidate, exam)
    other, champion_session = (
        _contender(names, store, frame, champion, exam) if champion else (None, None)
    )
    evidence = collect(
        names,
        candidate,
        stores,
        frame=frame,
        exam=exam.windows,
        session=session,
        champion_session=champion_session,
    )
    now = datetime.now(UTC)
    verdict = examine(
        model=names.model,
        gate=declaration.gate,
        exam=_exam(names, frame),
        candidate=own,
        champion=other,
        evidence=evidence,
        linear=_linear(names, store, frame, candidate),
        waivers=active(stores.database, names.model, now),
        task=declaration.task,
        quantiles=declaration.training.quantiles,
        drift_psi=declaration.monitoring.drift_psi,
        decided_at=as_of or now,
    )
    training_set = candidate.training_set
    card = model_card(
        declaration=declaration,
        verdict=verdict,
        author=candidate.author,
        training_windows=training_set.windows,
        training_rows=training_set.rows,
        training_set_digest=candidate.training_set_digest,
        features=training_set.features,
        evidence=evidence,
        provenance=_provenance(names, candidate, stores),
    )
    judged = Judged(verdict=verdict, candidate=candidate)
    if not record:
        return Judgement(judged, evidence, card, {})
    documents = _store_documents(store, verdict, evidence, card)
    digests = {name: digest for name, (digest, _) in documents.items()}
    row = _append(names, stores, judged, digests, cause=cause, key=key)
    stores.registry.set_verdict(names.model, candidate.version, verdict, documents=digests)
    return Judgement(judged.model_copy(update={"ledger_row": row}), evidence, card, documents)


def _provenance(names: Names, candidate: Candidate, stores: "Stores") -> "Provenance | None":
    try:
        return stores.registry.provenance(names.model, candidate.version)
    except RegistryError:
        # The gate has a rule for that; the card only has less to tell.
        return None


def _store_documents(
    store: "ArtifactStore", verdict: Verdict, evidence: "Evidence", card: str
) -> dict[str, tuple[str, str]]:
    from aios_platform.promotion.report import verdict_json

    contents = {
        "verdict": (verdict_json(verdict), ".json"),
        "evidence": (evidence.model_dump_json(indent=1).encode(), ".json"),
        "card": (card.encode(), ".md"),
    }
    return {
        name: (store.put(content, suffix)[0], suffix)
        for name, (content, suffix) in contents.items()
    }


def _append(
    names: Names,
    stores: "Stores",
    judged: Judged,
    documents: dict[str, str],
    *,
    cause: str,
    key: str | None,
) -> int:
    from aios_platform.ledger.entries import append

    verdict, candidate = judged.verdict, judged.candidate
    digests = [
        verdict.evidence_digest,
        verdict.exam_digest,
        verdict.candidate_digest,
        verdict.champion_digest,
        candidate.training_set_digest,
        *documents.values(),
    ]
    with stores.database.begin() as connection:
        return append(
            connection,
            kind=VERDICT,
            subject=names.model,
            payload={
                "cause": cause,
                "author": candidate.author,
                "verdict": verdict.model_dump(mode="json"),
                "documents": documents,
            },
            key=f"verdict:{key or uuid.uuid4().hex}",
            evidence=[digest for digest in dict.fromkeys(digests) if digest],
        )


def _exam_frame(names: Names, store: "ArtifactStore", exam: ExamFrames) -> "pa.Table | None":
    import pyarrow as pa

    from aios_platform.promotion.exam import labelled

    if not exam.windows:
        return None
    frame = pa.concat_tables([store.read(version) for version in exam.windows])
    return labelled(frame, names.declaration.label.column)


def _exam(names: Names, frame: "pa.Table | None") -> "Exam":
    from aios_platform.promotion.exam import Exam

    declaration = names.declaration
    if frame is None:
        return Exam(row_ids=(), labels=(), windows=())
    return Exam.from_frame(
        frame,
        row_id=declaration.source.row_id,
        label=declaration.label.column,
        columns=_looked_at(names),
        answers=declaration.answers,
    )


def _looked_at(names: Names) -> Sequence[str]:
    """Columns that the policy names; the window is there in any case."""
    gate = names.declaration.gate
    columns = [
        *(part.column for part in gate.slices),
        *(part.column for part in gate.protected),
        *(column for rule in gate.rules for column in rule.columns),
    ]
    return [name for name in dict.fromkeys(columns) if name != "window"]


def _contender(
    names: Names,
    store: "ArtifactStore",
    frame: "pa.Table | None",
    version: Candidate | Champion,
    exam: ExamFrames,
) -> "tuple[Contender, Session | None]":
    """Score one version on the exam; what goes wrong is a finding for the gate, not a crash."""
    from aios_platform.inference.session import Session
    from aios_platform.promotion.exam import Contender

    digest = version.model_digest
    session = None
    try:
        session = Session(store.get(digest, ".onnx"), digest=digest)
        if frame is None:
            raise ScoringError("There is no exam: no matured window after its training.")
        _same_service(names, store, version, exam)
        contender = Contender(
            version=version.version,
            row_ids=frame[names.declaration.source.row_id].to_numpy(),
            scores=session.predict(frame),
            trained_through=version.trained_through,
            digest=digest,
        )
    except DatabaseUnavailable:
        raise
    except AiosError as error:
        contender = Contender.unscorable(
            version.version, version.trained_through, str(error), digest=digest
        )
    return contender, session


def _linear(
    names: Names, store: "ArtifactStore", frame: "pa.Table | None", candidate: Candidate
) -> "Contender | None":
    """A linear model of the candidate's training rows, and its answers to the exam."""
    from aios_platform.inference.linear import fit_linear
    from aios_platform.promotion.exam import Contender

    declaration = names.declaration
    if frame is None or declaration.gate.linear_baseline is LinearBaseline.OFF:
        return None
    record, label = candidate.training_set, declaration.label.column
    try:
        rows = labelled_sample(store, record.frames, record.features.names, label)
        model = fit_linear(rows, record.features.fields, label, declaration.answers)
        return Contender(
            version="linear",
            row_ids=frame[declaration.source.row_id].to_numpy(),
            scores=model.predict(frame),
            trained_through=candidate.trained_through,
        )
    except DatabaseUnavailable:
        raise
    except AiosError as error:
        return Contender.unscorable("linear", candidate.trained_through, str(error))


def _same_service(
    names: Names, store: "ArtifactStore", version: Candidate | Champion, exam: ExamFrames
) -> None:
    trained = recall(store, names.model, version.training_set_digest).service_digest
    if trained != exam.service_digest:
        raise ScoringError(
            f"The exam's features were made by the feature service {exam.service_digest[:12]}; "
            f"version {version.version} was trained on {trained[:12]}, so its answers would say "
            "nothing.",
            remedy="Keep the old feature service beside the new one under another name.",
        )
