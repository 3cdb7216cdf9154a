"""From a trained version to the live one: headless, with a person, back again, and after a kill."""

import json
import threading

import pytest

from aios_platform.components.model_lifecycle.carrying_out import Status, carry_out
from aios_platform.contracts.decisions import Decision, Outcome
from aios_platform.errors import ApprovalError, ChampionConflict
from tests.integration.promotion.conftest import AS_OF, small

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
    done = aios("promote", home.names.model, "--version", version, "--as-of", "2013-04-20", "--json")
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

    [carried, *scored] = home.run(human)
    assert str(carried.run.job) == "promote"
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
    live, version = home.champion(), home.train(seed=2)
    from pathlib import Path

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
    from aios_platform.components.model_lifecycle.handoff import recall, remember

    live, version = home.champion(), home.train(seed=2)
    record = recall(home.stores.artifacts, home.names.model, live.training_set_digest)
    remember(
        home.stores.artifacts, home.names.model, record.model_copy(update={"service_digest": "0" * 64})
    )
    try:
        promotion = home.promote(version)
    finally:
        remember(home.stores.artifacts, home.names.model, record)
    # Both were trained on the same rows, so the candidate is as unfit as the champion.
    assert promotion.carried.status is Status.INCONCLUSIVE
    assert "feature service" in promotion.carried.message
    assert home.champion() == live
