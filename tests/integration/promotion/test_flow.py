"""From a trained version to the live one: headless, with a person, back again, and after a kill."""

import json
import os
import pkgutil
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest
import sqlalchemy

from aios_platform.components.model_lifecycle.carrying_out import Status, carry_out
from aios_platform.components.model_lifecycle.names import Names
from aios_platform.components.model_lifecycle.rollback import try_out
from aios_platform.contracts.decisions import Decision, Outcome
from aios_platform.errors import (
    AccessDenied,
    ApprovalError,
    ArtifactCorrupt,
    ChampionConflict,
    DatabaseUnavailable,
    FeatureError,
    PromotionError,
    RegistryError,
    ScoringError,
)
from aios_platform.ledger.health import healthy
from aios_platform.resources.stores import Artifacts, Ledger, Registry
from aios_platform.settings import PROJECT_ROOT, settings
from tests.integration.promotion.conftest import AS_OF, small
from tests.unit.promotion.test_traffic import minute

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.timeout(600),
]


def test_the_first_champion_has_everything_on_record(home):
    assert [str(result.run.job) for result in home.results] == ["score", "retrain", "score"]
    champion = home.champion()
    assert home.alias() == champion.version
    [row] = home.rows("verdict")
    evidence = json.loads(home.stores.artifacts.get(row.payload["documents"]["evidence"], ".json"))
    assert evidence["online_parity"]["cells"] > 1000
    assert evidence["online_parity"]["different"] == 0
    assert evidence["provenance_missing"] == []
    assert evidence["shared_rows"] == []
    assert evidence["leakage_cells"] > 0
    assert evidence["candidate"]["size_bytes"] > 0
    assert len(evidence["exam_drift"]) > 40
    assert set(row.payload["documents"].values()) <= set(row.evidence)
    assert (row.principal, row.payload["author"]) == ("ci", "ci")
    [trained] = home.rows("candidate")
    assert trained.payload["author"] == "ci"
    assert [r.payload["version"] for r in home.rows("alias_projected")] == [champion.version]
    assert len(home.rows("promotion")) == 1


def test_the_champion_has_its_serving_package_and_another_version_gets_one(home, aios):
    from aios_platform.contracts.packages import ServingPackage
    from aios_platform.inference.packages import read_package

    live, model = home.champion(), home.names.model
    kept = read_package(home.stores.artifacts, model, live.model_digest)
    assert kept.simple.inputs == home.names.declaration.features.request
    [made] = home.instance.fetch_materializations(home.names.asset("champion"), 1).records
    assert "| full |" in made.asset_materialization.metadata["tiers"].value
    shown = aios("package", model)
    assert shown.exit_code == 0, shown.output
    assert f"model {live.model_digest[:12]}, measured on 2013-04" in shown.output
    assert f"{kept.conformal.measured:.1%} of" in shown.output

    other = json.loads(aios("package", model, "--version", home.train(seed=1), "--json").stdout)
    assert other["model_digest"] != live.model_digest
    found = read_package(home.stores.artifacts, model, other["model_digest"])
    assert ServingPackage.model_validate(other) == found


def test_the_first_verdict_and_training_count_for_the_score(home):
    from aios_platform.readiness.collecting import score_of

    [row] = home.rows("verdict")
    rules = {rule["rule"]: rule for rule in row.payload["verdict"]["rules"]}
    linear = rules["beats_linear"]
    assert linear["outcome"] == "noted"
    assert "linear model of the same training rows: roc_auc is " in linear["reason"]
    found = {f.test.name: f for f in score_of(home.names, home.stores).findings}
    trained = home.rows("candidate")[-1]
    for name in ("infrastructure_2", "monitoring_5"):
        assert found[name].points == 1
        assert found[name].trace.link == f"ledger row {trained.seq}"
    assert "alone and together" in found["monitoring_5"].trace.says
    assert found["model_5"].points == (1 if linear["low"] > 0 else 0)
    # There is no version before it to be slower than.
    assert found["monitoring_6"].points == 0


def test_a_row_is_followed_from_its_source_to_its_label(home, aios):
    from aios_platform.errors import LifecycleError
    from aios_platform.inference.session import Session

    [key, version] = ["2013-04", home.champion().version]
    store, model = home.stores.artifacts, home.names.model
    scored = store.read(store.current(home.names.predictions, key))
    row, answer = str(scored["flight_id"][17]), scored["probability"][17].as_py()
    found = json.loads(aios("follow", model, row, "--json").stdout)
    assert (found["window"], found["version"]) == (key, version)
    assert found["stored"] == {"version": version, "answer": {"probability": answer}}
    assert found["answer"]["probability"] == pytest.approx(answer, abs=1e-6)
    assert found["source"]["flight_id"] == row
    assert found["label"] in ("True", "False")

    first, *others = found["features"]
    assert abs(first["moves"]) >= max(abs(each["moves"]) for each in others) > 0
    frame = store.read(store.current(f"{model}/scoring_frame", key))
    mine = frame.slice(frame["flight_id"].to_pylist().index(row), 1)
    place = mine.schema.get_field_index(first["name"])
    without = mine.set_column(place, mine.schema.field(place), pa.nulls(1, mine.schema[place].type))
    digest = home.champion().model_digest
    session = Session(store.get(digest, ".onnx"), digest=digest)
    gone = found["answer"]["probability"] - float(session.predict(without)[0])
    assert first["moves"] == pytest.approx(gone, abs=1e-6)

    page = aios("follow", model, row, "--version", version, "--window", key).output
    assert f"Answer now: probability {found['answer']['probability']:.6g}" in page
    assert "carrier_late_rate_7d" in page
    missing = aios("follow", model, "nobody", "--window", key)
    assert isinstance(missing.exception, LifecycleError)
    assert "no row 'nobody' in window 2013-04" in str(missing.exception)


def reproduce_job(home):
    job = home.definitions.resolve_job_def(f"{home.names.model}__reproduce")
    return job.execute_in_process(instance=home.instance, raise_on_error=False)


def test_the_live_version_is_trained_again_by_its_job(home):
    from aios_platform.readiness.collecting import score_of

    assert reproduce_job(home).success
    row = home.rows("reproduction")[0]
    assert row.payload["version"] == home.champion().version
    assert row.payload["reproduced"]
    found = {f.test.name: f for f in score_of(home.names, home.stores).findings}
    # Run by hand, so half a point.
    assert found["infrastructure_1"].points == 0.5
    assert found["infrastructure_1"].trace.link == f"ledger row {row.seq}"


def test_promoting_the_live_champion_is_no_work(home, aios):
    before = [row.seq for row in home.rows("verdict")]
    done = aios("promote", home.names.model, "--version", home.champion().version, "--json")
    assert done.exit_code == 0, done.output
    assert "is live already" in json.loads(done.stdout)["message"]
    assert [row.seq for row in home.rows("verdict")] == before


def test_a_version_is_promoted_once_and_a_dry_run_writes_nothing(home, aios, tmp_path):
    version, model = home.train(seed=1), home.names.model
    verdicts, live = len(home.rows("verdict")), home.champion()
    dry = aios("promote", model, "--version", version, "--dry-run", "--as-of", AS_OF.isoformat())
    assert dry.exit_code == 0, dry.output
    assert "nothing was written" in dry.output
    assert (len(home.rows("verdict")), home.champion()) == (verdicts, live)

    page = tmp_path / "summary.md"
    arguments = ("promote", model, "--version", version, "--as-of", AS_OF.isoformat())
    done = aios(*arguments, "--json", "--summary", str(page))
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert (said["status"], said["champion"]) == ("promoted", version)
    assert said["verdict"]["champion_version"] == live.version
    assert "PROMOTED" in page.read_text()
    assert home.alias() == home.champion().version == version
    assert aios(*arguments).exit_code == 0
    assert home.promotions_of(version) == 1


def test_a_worse_version_is_rejected_and_a_sample_is_never_promoted(home, aios):
    live = home.champion()
    sampled = home.train(seed=1, sample=0.5)
    done = aios("promote", home.names.model, "--version", sampled, "--as-of", AS_OF.isoformat(),
                "--json")  # fmt: skip
    assert done.exit_code == 2, done.output
    rules = {rule["rule"]: rule["outcome"] for rule in json.loads(done.stdout)["verdict"]["rules"]}
    assert rules["sampled"] == "fail"
    strict = small(floors={"roc_auc": 0.99})
    version = home.train(seed=2)
    done = aios("promote", home.names.model, "--version", version, "--as-of", AS_OF.isoformat(),
                names=strict)  # fmt: skip
    assert done.exit_code == 2, done.output
    assert home.champion() == live


def test_a_clock_set_back_leaves_no_exam_and_no_promotion(home, aios):
    version = home.train(seed=2)
    done = aios(
        "promote", home.names.model, "--version", version, "--as-of", "2013-04-20", "--json"
    )
    assert done.exit_code == 3, done.output
    assert json.loads(done.stdout)["verdict"]["exam_windows"] == []


def test_an_unknown_version_is_an_error(home, aios):
    done = aios("promote", home.names.model, "--version", "999")
    assert done.exit_code == 1
    assert "not found" in str(done.exception)


def approve(home, number, *, digest=None, by="ann", decision=True):
    from aios_platform.access.principals import acting_with
    from aios_platform.ledger.approvals import decide, request_of

    asked = request_of(home.stores.database, number)
    with acting_with(home.keys[by]):
        return decide(
            home.stores.database, number, approve=decision, reason="looked at the slices",
            evidence_digest=digest or asked.evidence_digest,
        )  # fmt: skip


def test_a_person_approves_and_the_plan_carries_it_out(home, aios):
    human = small(approval="human")
    version, live = home.train(seed=3), home.champion()
    arguments = ("promote", home.names.model, "--version", version, "--as-of", AS_OF.isoformat(),
                 "--json")  # fmt: skip
    done = aios(*arguments, names=human)
    assert done.exit_code == 4, done.output
    number = json.loads(done.stdout)["request"]
    verdicts = len(home.rows("verdict"))
    again = aios(*arguments, names=human)
    assert (again.exit_code, json.loads(again.stdout)["request"]) == (4, number)
    assert len(home.rows("verdict")) == verdicts, "what waits is not judged again"
    assert {str(result.run.job) for result in home.run(human)} <= {"score"}
    assert home.run(human) == [], "what waits is not trained again either"
    assert home.champion() == live

    with pytest.raises(ApprovalError, match="other evidence"):
        approve(home, number, digest="0" * 64)
    assert approve(home, number).state == "approved"
    with pytest.raises(ApprovalError, match="decided already"):
        approve(home, number)

    [request] = tick(home, "approvals").run_requests
    assert request.tags["aios/approval_request"] == str(number)
    [carried, *scored] = home.run(human)
    assert str(carried.run.job) == "promote"
    assert not tick(home, "approvals").run_requests
    assert {str(result.run.job) for result in scored} <= {"score"}
    assert home.champion().version == home.alias() == version
    assert home.promotions_of(version) == 1
    assert aios(*arguments, names=human).exit_code == 0


def test_a_rejected_request_leaves_the_champion_and_is_not_asked_again(home):
    human, live = small(approval="human"), home.champion()
    version = home.train(seed=4)
    number = home.promote(version, human).carried.request.ledger_row
    assert approve(home, number, decision=False).state == "rejected"
    assert home.run(human) == []
    assert home.champion() == live


def test_an_approval_is_void_once_the_version_was_judged_again(home):
    from aios_platform.components.model_lifecycle.candidates import candidate_of
    from aios_platform.components.model_lifecycle.judging import judge, newest_exam

    human, live = small(approval="human"), home.champion()
    version = home.train(seed=5)
    number = home.promote(version, human).carried.request.ledger_row
    approve(home, number)
    candidate = candidate_of(human, version, home.stores)
    judge(
        human, candidate, newest_exam(human, candidate, home.stores, AS_OF), home.stores, cause="x"
    )
    [carried] = home.run(human)
    assert "void: stays" in str(carried.stages[0]) or carried.stages[0].skipped
    [row] = home.rows("approval_void")
    assert "judged again" in row.payload["why"]
    assert home.champion() == live
    assert home.run(human) == [], "a void approval is not looked at again"


def test_the_page_decides_with_a_one_time_code_and_not_without(home):
    from aios_platform.access.principals import acting_with
    from aios_platform.components.model_lifecycle.carrying_out import complete
    from aios_platform.ledger.approvals import issue_code, request_of

    human = small(approval="human")
    version = home.train(seed=6)
    number = home.promote(version, human).carried.request.ledger_row
    with acting_with(home.keys["ann"]):
        code = issue_code(home.stores.database, number)
    job = home.definitions.resolve_job_def(f"{home.names.model}__approval")

    def launch(code):
        config = {"request": number, "decision": "approve", "reason": "seen", "code": code}
        return job.execute_in_process(
            instance=home.instance,
            run_config={"ops": {f"{home.names.model}__decide": {"config": config}}},
            raise_on_error=False,
        )

    assert not launch("AAAA-BBBB-CCCC-DDDD-EEEE").success
    assert request_of(home.stores.database, number).state == "pending"
    assert launch(code).success
    assert request_of(home.stores.database, number).decided_by == "ann"
    assert not launch(code).success
    assert complete(human, number, home.stores).status is Status.PROMOTED
    assert complete(human, number, home.stores).status is Status.PROMOTED
    assert home.promotions_of(version) == 1


def test_a_request_that_nobody_answers_expires_and_says_so_once(home):
    from aios_platform.components.model_lifecycle.approvals import note_expired
    from aios_platform.ledger.approvals import request_of

    hasty, live = small(approval="human", approval_days=1e-5), home.champion()
    version = home.train(seed=4)
    number = home.promote(version, hasty).carried.request.ledger_row
    while request_of(home.stores.database, number).state == "pending":
        threading.Event().wait(0.05)
    assert note_expired(home.names.model, home.stores.database) == 1
    assert note_expired(home.names.model, home.stores.database) == 0
    with pytest.raises(ApprovalError, match="expired"):
        approve(home, number)
    assert home.champion() == live


def test_of_two_promoters_at_once_one_wins_and_the_other_is_told(home, aios):
    from aios_platform.access.principals import acting_with
    from aios_platform.components.model_lifecycle.candidates import candidate_of
    from aios_platform.components.model_lifecycle.judging import judge, newest_exam

    judged = []
    for seed in (7, 8):
        candidate = candidate_of(home.names, home.train(seed=seed), home.stores)
        exam = newest_exam(home.names, candidate, home.stores, AS_OF)
        judged.append(judge(home.names, candidate, exam, home.stores, cause="race").judged)
    assert {each.verdict.decision for each in judged} == {Decision.PROMOTE}
    barrier, ends = threading.Barrier(2), []

    def act(each):
        with acting_with(home.keys["ci"]):
            barrier.wait()
            try:
                ends.append(carry_out(home.names, each, home.stores).status)
            except ChampionConflict:
                ends.append("conflict")

    threads = [threading.Thread(target=act, args=(each,)) for each in judged]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ends) == ["conflict", "promoted"]
    assert home.alias() == home.champion().version
    assert sum(home.promotions_of(each.candidate.version) for each in judged) == 1


def test_a_conflict_has_an_exit_status_of_its_own(home, aios, monkeypatch):
    from aios_platform.components.model_lifecycle import promoting

    version = home.train(seed=2)

    def late(*arguments):
        raise ChampionConflict("somebody promoted in between", remedy="again")

    monkeypatch.setattr(promoting, "carry_out", late)
    done = aios("promote", home.names.model, "--version", version, "--as-of", AS_OF.isoformat())
    assert done.exit_code == 5


def test_a_damaged_champion_leaves_the_verdict_open(home, aios):
    live, version = home.champion(), home.spare()
    blob = Path(home.stores.artifacts.blob_uri(live.model_digest, ".onnx"))
    content = blob.read_bytes()
    blob.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    try:
        done = aios("promote", home.names.model, "--version", version, "--as-of",
                    AS_OF.isoformat(), "--json")  # fmt: skip
    finally:
        blob.write_bytes(content)
    assert done.exit_code == 3, done.output
    rules = {rule["rule"]: rule for rule in json.loads(done.stdout)["verdict"]["rules"]}
    assert rules["champion_scored"]["outcome"] == Outcome.UNKNOWN
    assert "do not have the digest" in rules["champion_scored"]["reason"]
    assert home.champion() == live


def test_a_champion_of_another_feature_service_cannot_be_compared(home):
    from aios_platform.features.pinned_sets import recall, remember

    live, version = home.champion(), home.spare()
    record = recall(home.stores.artifacts, home.names.model, live.training_set_digest)
    remember(
        home.stores.artifacts,
        home.names.model,
        record.model_copy(update={"service_digest": "0" * 64}),
    )
    try:
        promotion = home.promote(version)
    finally:
        remember(home.stores.artifacts, home.names.model, record)
    # Both were trained on the same rows, so the candidate is as unfit as the champion.
    assert promotion.carried.status is Status.INCONCLUSIVE
    assert "feature service" in promotion.carried.message
    assert home.champion() == live


def roll_back(home, **options):
    from aios_platform.components.model_lifecycle.rollback import roll_back

    return roll_back(home.names, home.stores, **options)


def judged_degraded(home, version):
    from aios_platform.ledger.entries import append

    decision = {
        "model": home.names.model, "window": "2013-04", "action": "retrain",
        "cause": "degradation", "reason": "0.1 worse", "evidence": {}, "decided_at": AS_OF,
    }  # fmt: skip
    with home.stores.database.begin() as connection:
        append(
            connection,
            kind="retrain_decision",
            subject=home.names.model,
            payload={"version": version, "decision": decision},
            key=f"test:{version}",
        )


def test_a_rollback_goes_to_what_was_healthy_and_not_one_step_back(home, aios):
    first, second, third = (home.train(seed=seed) for seed in (11, 12, 13))
    for version in (first, second, third):
        assert home.promote(version).carried.status is Status.PROMOTED
    judged_degraded(home, second)
    done = aios("rollback", home.names.model, "--reason", "scores look wrong", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["version"] == first
    assert home.champion().version == home.alias() == first

    again = roll_back(home, reason="scores look wrong")
    assert (again.left, home.champion().version) == (None, first), "the same command is one step"
    [row, *_] = home.rows("rollback")
    assert (row.principal, row.payload["previous"]) == ("ci", third)

    for version in (second, third):
        with pytest.raises(PromotionError, match="no healthy earlier champion"):
            roll_back(home, reason="back", to=version)
    assert home.promotions_of(first) == 1


def test_a_rollback_is_an_operators_and_wants_a_reason(home):
    from aios_platform.access.principals import acting_with

    live = home.champion()
    with acting_with(home.keys["ann"]), pytest.raises(AccessDenied, match="operator"):
        roll_back(home, reason="because")
    with pytest.raises(PromotionError, match="reason"):
        roll_back(home, reason=" ")
    assert home.champion() == live


def test_a_rollback_to_damaged_bytes_or_another_feature_service_is_refused(home):
    live = home.champion()
    target = healthy(home.stores.database, home.names.model, history(home))[0]
    blob = Path(home.stores.artifacts.blob_uri(target.model_digest, ".onnx"))
    content = blob.read_bytes()
    blob.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    try:
        with pytest.raises(ArtifactCorrupt):
            roll_back(home, reason="damaged")
    finally:
        blob.write_bytes(content)
    features = home.names.declaration.features.model_copy(update={"request": ("carrier",)})
    changed = Names(
        home.names.declaration.model_copy(update={"features": features}), home.names.folder
    )
    with pytest.raises(ScoringError, match="trained on the feature service"):
        try_out(changed, target, home.stores)
    assert home.champion() == live


def history(home):
    from aios_platform.ledger import champions

    return champions.history(home.stores.database, home.names.model)


def tick(home, name, cursor=None):
    """One evaluation of a sensor, as the daemon would."""
    sensor = home.definitions.resolve_sensor_def(f"{home.names.model}__{name}")
    resources = {
        "artifacts": Artifacts(),
        "ledger": Ledger(),
        "registry": Registry(),
    }
    context = dg.build_sensor_context(
        instance=home.instance, definitions=home.definitions, cursor=cursor, resources=resources
    )
    return sensor.evaluate_tick(context)


def test_an_alias_moved_by_hand_is_put_back_and_the_check_fails_once(home):
    live = home.champion()
    other = home.spare()
    with pytest.MonkeyPatch.context() as patch:
        # As long as all is well, the minute's look does without MLflow.
        patch.setattr(Registry, "open", die)
        quiet = tick(home, "reconcile", cursor="in_step")
    assert not quiet.asset_events

    home.stores.registry.set_champion_alias(home.names.model, other)
    found = tick(home, "reconcile", cursor="in_step")
    [event] = found.asset_events
    assert (event.check_name, event.passed) == ("alias_in_step", False)
    assert f"pointed at version {other}" in event.metadata["message"].text
    assert home.alias() == live.version
    [row] = home.rows("alias_tampered")
    assert (row.principal, row.payload["found"]) == ("service:scheduler", other)

    [event] = tick(home, "reconcile", cursor=found.cursor).asset_events
    assert event.passed
    assert len(home.rows("alias_tampered")) == 1


def test_an_alias_that_a_kill_left_behind_is_put_right_without_an_alarm(home, monkeypatch):
    version = home.train(seed=14)
    with monkeypatch.context() as patch:
        patch.setattr(home.stores.registry, "set_champion_alias", die)
        with pytest.raises(Killed):
            home.promote(version)
    assert home.champion().version == version != home.alias()
    tampered = len(home.rows("alias_tampered"))
    [event] = tick(home, "reconcile", cursor="in_step").asset_events
    assert event.passed
    assert home.alias() == version
    assert len(home.rows("alias_tampered")) == tampered


def test_a_champion_that_is_gone_from_mlflow_is_an_alarm_and_no_crash(home):
    live = home.champion()
    client = home.stores.registry._client
    other = home.spare()
    client.delete_model_version(home.names.model, live.version)
    [event] = tick(home, "reconcile", cursor="in_step").asset_events
    assert not event.passed
    assert "MLflow does not have it" in event.metadata["message"].text
    assert not tick(home, "reconcile", cursor="missing").asset_events
    assert len(home.rows("champion_missing")) == 1
    assert home.champion() == live
    # Its bytes are kept by digest, so the next candidate still meets it.
    promotion = home.promote(other)
    assert promotion.verdict.champion_version == live.version
    assert promotion.carried.status is Status.PROMOTED
    assert home.alias() == other
    [event] = tick(home, "reconcile", cursor="missing").asset_events
    assert event.passed


class Killed(BaseException):
    """Stands for a process that dies: nothing may catch it."""


def die(*arguments, **named):
    raise Killed


STEPS = {
    "before the verdict's row": ("before", "aios_platform.ledger.entries.append"),
    "before MLflow's tags": ("before", "aios_platform.registry.store.ModelRegistry.set_verdict"),
    "before the swap": ("before", "aios_platform.ledger.champions.promote"),
    "before the alias": (
        "before",
        "aios_platform.registry.store.ModelRegistry.set_champion_alias",
    ),
    "after the alias": (
        "after",
        "aios_platform.registry.store.ModelRegistry.set_champion_alias",
    ),
}


@pytest.mark.parametrize("what", STEPS)
def test_killed_at_any_step_the_same_command_makes_one_champion(home, monkeypatch, what):
    when, step = STEPS[what]
    version = next(v for v in (home.train(20), home.train(21)) if v != home.champion().version)
    before = home.promotions_of(version)
    owner, name = step.rsplit(".", 1)
    target = pkgutil.resolve_name(owner)
    real = getattr(target, name)

    def dying(*arguments, **named):
        if when == "after":
            real(*arguments, **named)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(target, name, dying)
        with pytest.raises(Killed):
            home.promote(version)
    assert home.promote(version).carried.status is Status.PROMOTED
    assert home.champion().version == home.alias() == version
    assert home.promotions_of(version) == before + 1
    assert home.promote(version).carried.status is Status.PROMOTED
    assert home.promotions_of(version) == before + 1


DYING = """
import os, signal
from datetime import datetime
from aios_platform.components.model_lifecycle.promoting import promote_version
from aios_platform.registry.store import ModelRegistry
from aios_platform.resources.stores import Stores
from tests.integration.promotion.conftest import AS_OF, small
from tests.unit.promotion.test_traffic import minute
ModelRegistry.set_champion_alias = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
promote_version(small(), "VERSION", Stores(), AS_OF)
"""


def test_killed_for_real_between_the_swap_and_the_alias(home):
    version = home.train(seed=16)
    died = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", DYING.replace("VERSION", version)],
        cwd=PROJECT_ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "AIOS_HOME": str(settings().home_path),
             "AIOS_API_KEY": home.keys["ci"], "PYTHONPATH": str(PROJECT_ROOT)},
    )  # fmt: skip
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert home.champion().version == version != home.alias()
    verdicts = len(home.rows("verdict"))
    assert home.promote(version).carried.status is Status.PROMOTED
    assert home.alias() == version
    assert home.promotions_of(version) == 1
    assert len(home.rows("verdict")) == verdicts, "what is live already is not judged again"
    assert home.rows("promotion")[0].principal == "ci"


def test_a_canary_is_judged_advanced_by_the_sensor_promoted_and_taken_back(home, aios):
    live = home.champion()
    version = next(v for v in map(home.train, (7, 8)) if v != live.version)
    before = home.promotions_of(version)
    steps = [{"share": 0.1, "minutes": 0, "requests": 100}]
    serving = home.names.declaration.serving.model_validate({"rollout": {"steps": steps}})
    quick = Names(home.names.declaration.model_copy(update={"serving": serving}), home.names.folder)
    arguments = ("rollout", home.names.model, "start", "--version", version, "--reason", "try it",
                 "--as-of", AS_OF.isoformat(), "--json")  # fmt: skip
    done = aios(*arguments, names=quick)
    assert done.exit_code == 0, done.output
    begun = json.loads(done.stdout)["rollout"]
    assert (begun["state"], begun["live_version"]) == ("running", live.version)
    [row, *_] = home.rows("verdict")
    assert row.payload["verdict"]["candidate_version"] == version

    assert "still to come" in tick(home, "rollout").skip_message
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    minute(home.stores.database, home.names.model, version, "canary", now, 300)
    minute(home.stores.database, home.names.model, live.version, "live", now, 3000)
    assert home.champion() == live
    assert "is promoted" in tick(home, "rollout").skip_message
    assert home.champion().version == home.alias() == version
    assert home.promotions_of(version) == before + 1

    now = datetime.now(UTC).replace(second=0, microsecond=0)
    minute(home.stores.database, home.names.model, version, "live", now, 300, errors=200)
    assert f"Version {live.version} is live again" in tick(home, "rollout").skip_message
    assert home.champion().version == home.alias() == live.version
    assert home.rows("rollback")[0].principal == "service:scheduler"


@contextmanager
def down(home, name):
    """One database of the server takes no connections, and loses those it had."""
    maintenance = sqlalchemy.create_engine(
        home.stores.database.server_url, isolation_level="AUTOCOMMIT", poolclass=sqlalchemy.NullPool
    )
    with maintenance.connect() as connection:
        connection.exec_driver_sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        connection.exec_driver_sql(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
        )
        try:
            yield
        finally:
            connection.exec_driver_sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")


FLOW = "aios_platform.components.model_lifecycle"


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("mlflow", f"{FLOW}.promoting.candidate_of"),
        ("mlflow", f"{FLOW}.promoting.judge"),
        ("mlflow", "aios_platform.registry.store.ModelRegistry.set_verdict"),
        ("aios", f"{FLOW}.promoting.candidate_of"),
        ("aios", f"{FLOW}.promoting.judge"),
        ("aios", f"{FLOW}.judging._append"),
        ("aios", "aios_platform.ledger.champions.promote"),
    ],
)
def test_without_a_database_there_is_an_error_and_the_champion_stays(home, monkeypatch, name, step):
    live, version = home.champion(), home.spare()
    owner, function = step.rsplit(".", 1)
    target = pkgutil.resolve_name(owner)
    real = getattr(target, function)
    with ExitStack() as outage:

        def then_down(*arguments, **named):
            outage.enter_context(down(home, name))
            return real(*arguments, **named)

        monkeypatch.setattr(target, function, then_down)
        with pytest.raises((DatabaseUnavailable, RegistryError)):
            home.promote(version)
    monkeypatch.undo()
    assert home.champion() == live
    assert home.alias() == live.version


def test_a_version_is_reproduced_and_what_differs_is_named(home, aios):
    version = home.rows("candidate")[-1].payload["version"]
    done = aios("reproduce", home.names.model, version, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["same_training_set"]
    assert found["largest_difference"] <= 1e-6
    # Of the sources, somebody may be editing a file while this runs.
    differs = [each["what"] for each in found["differences"]]
    assert [what for what in differs if not what.startswith(("source files", "git commit"))] == []

    raw = home.stores.artifacts.require(home.names.raw_rows, "2013-02")
    rows = home.stores.artifacts.read(raw)
    home.stores.artifacts.write(home.names.raw_rows, "2013-02", rows.slice(1), inputs=raw.inputs)
    try:
        done = aios("reproduce", home.names.model, version)
        failed = reproduce_job(home)
    finally:
        home.stores.artifacts.write(home.names.raw_rows, "2013-02", rows, inputs=raw.inputs)
    assert done.exit_code == 2, done.output
    assert "NOT reproduced" in done.output
    assert "data of 2013-02: flight_delay/raw/flights/2013-02" in done.output
    assert "other rows" in done.output
    assert not failed.success
    newest = home.rows("reproduction")[0].payload
    assert (newest["version"], newest["reproduced"]) == (home.champion().version, False)


def test_every_row_of_the_ledger_is_explained(home, aios):
    from aios_platform.components.model_lifecycle.explanation import _KINDS, explain
    from aios_platform.ledger.entries import entries

    rows = entries(home.stores.database, limit=1000)
    for row in rows:
        words = explain(row)
        assert row.subject in words
        assert "{" not in words, words
    seen = {row.kind for row in rows}
    elsewhere = {
        "waiver", "waiver_revoked", "role_granted", "role_revoked", "key_revoked", "call_granted",
        "call_revoked", "review_decision", "search",
    }  # fmt: skip
    assert seen >= set(_KINDS) - elsewhere
    done = aios("explain", str(home.rows("rollback")[0].seq))
    assert "because: " in done.output


def test_impact_names_the_live_model_and_the_card_is_printed(home, aios):
    from aios_platform.components.model_lifecycle.impact import readers_of

    [reader] = readers_of("carrier_delays", {home.names.model: home.names}, home.stores)
    assert (reader.model, reader.version) == (home.names.model, home.champion().version)
    assert "carrier_late_rate_7d" in reader.features
    with pytest.raises(FeatureError, match="carrier_delays"):
        readers_of("carrier_delay", {home.names.model: home.names}, home.stores)
    done = aios("card", home.names.model)
    assert done.exit_code == 0, done.output
    assert f"version {home.champion().version}" in done.output


def test_a_waiver_lets_one_rule_pass_and_shows_in_the_verdict(home, aios):
    from aios_platform.access.principals import acting_with

    strict = small(floors={"roc_auc": 0.99})
    version = home.train(seed=15)
    until = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    arguments = ("waivers", "grant", home.names.model)
    denied = aios(*arguments, "floor_roc_auc", "--reason", "x", "--expires", until, names=strict)
    assert isinstance(denied.exception, AccessDenied)
    with acting_with(home.keys["ann"]):
        wrong = aios(*arguments, "sampled", "--reason", "x", "--expires", until, names=strict)
        assert isinstance(wrong.exception, PromotionError)
        done = aios(*arguments, "floor_roc_auc", "--reason", "known", "--expires", until,
                    names=strict)  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "floor_roc_auc" in aios("waivers", "list", home.names.model).output
    promotion = home.promote(version, strict)
    waived = [rule for rule in promotion.verdict.rules if rule.outcome is Outcome.WAIVED]
    assert [rule.rule for rule in waived] == ["floor_roc_auc"]
    assert promotion.carried.status is Status.PROMOTED
