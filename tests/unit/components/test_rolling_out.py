"""Rollouts on a real ledger: what starts, what moves, what is promoted, what is taken back."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from typer.testing import CliRunner

from aios_platform.access.principals import SCHEDULER, acting_as
from aios_platform.alerts.outbox import alerts
from aios_platform.artifacts import ArtifactStore
from aios_platform.cli import rollout as command
from aios_platform.cli.main import app
from aios_platform.components.model_lifecycle import (
    carrying_out,
    rollback,
    rolling_out,
    rollout_verdicts,
)
from aios_platform.components.model_lifecycle.explanation import explain
from aios_platform.components.model_lifecycle.handoff import Candidate, Judged
from aios_platform.components.model_lifecycle.judging import Judgement
from aios_platform.components.model_lifecycle.names import Names
from aios_platform.components.model_lifecycle.rollout_watch import look_at_rollout
from aios_platform.components.model_lifecycle.state import VERDICT, read_state
from aios_platform.contracts.alerts import AlertKind
from aios_platform.contracts.datasets import FeatureSchema, TrainingSet
from aios_platform.contracts.decisions import Decision
from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.contracts.rollouts import RolloutMode, RolloutState
from aios_platform.errors import ArtifactMissing, ChampionConflict, RolloutError
from aios_platform.features.pinned_sets import remember
from aios_platform.ledger import approvals
from aios_platform.ledger.champions import champion_of, promote, roll_back
from aios_platform.ledger.entries import append, entries
from aios_platform.ledger.rollouts import active_rollouts, newest
from aios_platform.resources.stores import Stores
from aios_platform.settings import PROJECT_ROOT, settings
from tests.unit.components.test_carrying_out import declared
from tests.unit.inference.conftest import make_onnx
from tests.unit.promotion.test_traffic import minute
from tests.verdicts import verdict

pytestmark = [
    pytest.mark.postgres,
    # Dagster's resources, on a Pydantic that is newer than they are.
    pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecatedSince20"),
]
SERVING = {
    "rollout": {
        "steps": [
            {"share": 0.1, "minutes": 0, "requests": 100},
            {"share": 0.5, "minutes": 0, "requests": 100},
        ],
        "shadow_rows": 100,
    }
}


def training_set(service_digest="5" * 64) -> TrainingSet:
    return TrainingSet(
        frames=(), exam=(), features=FeatureSchema(fields=()), service_digest=service_digest,
        as_of="2014-01-01T00:00:00+00:00", cells_replayed=1,
    )  # fmt: skip


@dataclass
class Home:
    """A model with version 1 live, and what is needed to roll others out."""

    names: Names
    stores: Stores
    digests: dict[str, str] = field(default_factory=dict)

    @property
    def database(self):
        return self.stores.database

    @property
    def model(self) -> str:
        return self.names.model

    def live(self) -> str:
        return champion_of(self.database, self.model).version

    def candidate(self, version: str) -> Candidate:
        record = training_set()
        return Candidate(
            version=version, run_id="r", model_digest=self.digests[version],
            training_set_digest=record.digest, trained_through="2013-09", training_set=record,
            author="somebody",
        )  # fmt: skip

    def version(self, version: str) -> None:
        content = make_onnx(scale=float(version))
        self.digests[version], _ = self.stores.artifacts.put(content, ".onnx")

    def verdict(self, version, decision=Decision.PROMOTE):
        live = champion_of(self.database, self.model)
        made = verdict(
            self.model,
            version,
            live.version if live else None,
            decision=decision,
            candidate_digest=self.digests[version],
            champion_digest=live.model_digest if live else "",
        )
        with self.database.begin() as connection:
            append(
                connection, kind=VERDICT, subject=self.model,
                key=f"{self.model}{made.fingerprint}",
                payload={"cause": "c", "verdict": made.model_dump(mode="json")},
            )  # fmt: skip
        return made

    def promote(self, version):
        promote(
            self.database, self.verdict(version), model_digest=self.digests[version], run_id="r",
            training_set_digest=training_set().digest, trained_through="2013-09",
        )  # fmt: skip

    def start(self, version="2", mode=RolloutMode.CANARY, reason="try it"):
        return rolling_out.start(self.names, self.stores, version=version, mode=mode, reason=reason)

    def served(self, version, role, requests=200, at=None, **figures):
        at = (at or datetime.now(UTC)).replace(second=0, microsecond=0)
        minute(self.database, self.model, version, role, at, requests, **figures)

    def look(self, later=timedelta(0)) -> str:
        with acting_as(SCHEDULER):
            return look_at_rollout(self.names, self.stores, datetime.now(UTC) + later)

    def rows(self, kind="rollout"):
        return entries(self.database, subject=self.model, kind=kind)

    def alerts(self) -> list[AlertKind]:
        return [raised.alert.kind for raised in alerts(self.database, subject=self.model)]


@pytest.fixture
def make(database, store, tmp_path, monkeypatch):
    def build(**gate) -> Home:
        names = declared(tmp_path, **gate)
        declaration = names.declaration.model_dump(mode="json", exclude_unset=True)
        names = Names(ModelDeclaration.model_validate(declaration | {"serving": SERVING}), tmp_path)
        home = Home(names, Stores(ArtifactStore(store.root)))
        remember(store, names.model, training_set())
        for version in "123":
            home.version(version)
        home.promote("1")
        for module in (carrying_out, rollback):
            monkeypatch.setattr(module, "follow", lambda model, stores: "")
        for module in (carrying_out, rolling_out):
            monkeypatch.setattr(module, "ensure_package", lambda *version: None)
        monkeypatch.setattr(
            rolling_out, "candidate_of", lambda names, version, stores: home.candidate(version)
        )
        monkeypatch.setattr(rollback, "try_out", lambda names, champion, stores: 1)
        return home

    return build


@pytest.fixture
def home(make) -> Home:
    return make()


def test_a_canary_goes_through_its_steps_and_is_promoted_by_its_verdict(home):
    made = home.verdict("2")
    begun = home.start()
    assert begun.changed
    assert active_rollouts(home.database)[home.model].share == 0.1
    assert "200 of" not in home.look()
    assert "100 of 100 candidate requests" in home.look()
    home.served("2", "canary")
    home.served("1", "live", 2000)
    assert "at step 2" in home.look()
    assert newest(home.database, home.model).share == 0.5
    assert home.live() == "1"
    assert "promoted" in home.look()
    assert home.live() == "2"
    rollout = newest(home.database, home.model)
    assert (rollout.state, rollout.evidence["requests"]) == (RolloutState.PROMOTED, 200)
    [_, swap] = reversed(home.rows("promotion"))
    assert made.evidence_digest in swap.evidence
    assert [row.principal for row in home.rows()][:2] == [SCHEDULER] * 2
    home.look()
    assert len(home.rows()) == 3
    for row in home.rows():
        words = explain(row)
        assert "canary of version 2 beside version 1" in words
        assert "{" not in words
    assert home.alerts() == []


def test_a_guard_aborts_at_once_tells_somebody_and_the_live_version_stays(home):
    home.verdict("2")
    home.start()
    home.served("2", "canary", 60, errors=20)
    home.served("1", "live", 2000)
    assert "20 of its 60 requests failed" in home.look()
    rollout = newest(home.database, home.model)
    assert rollout.state is RolloutState.ABORTED
    assert rollout.share == 0
    assert home.live() == "1"
    assert home.alerts() == [AlertKind.ROLLOUT_ABORTED]
    home.look()
    assert (len(home.rows()), len(home.alerts())) == (2, 1)
    home.start(reason="mended")
    assert alerts(home.database, subject=home.model, open_only=True) == []


def test_another_promotion_meanwhile_aborts_it(home):
    home.verdict("2")
    home.start()
    home.promote("3")
    assert "champion is version 3 now" in home.look()
    assert newest(home.database, home.model).state is RolloutState.ABORTED
    assert home.live() == "3"


def test_a_version_that_was_promoted_by_hand_meanwhile_closes_its_rollout(home):
    home.verdict("2")
    home.start()
    home.promote("2")
    home.look()
    assert newest(home.database, home.model).state is RolloutState.PROMOTED
    assert home.alerts() == []


def test_a_newer_verdict_against_the_candidate_aborts_it(home):
    home.verdict("2")
    home.start()
    home.verdict("2", Decision.REJECT)
    assert "judged again: reject" in home.look()


def nothing(home):
    pass


def rejected(home):
    home.verdict("2", Decision.REJECT)


def against_another_champion(home):
    home.verdict("2")
    home.promote("3")


def carried_out_before(home):
    first = champion_of(home.database, home.model)
    home.promote("2")
    roll_back(home.database, home.model, to=first, expected="2", reason="bad")


def on_other_bytes(home):
    home.verdict("2")
    home.digests["2"] = home.digests["3"]


@pytest.mark.parametrize("mode", [RolloutMode.CANARY, RolloutMode.BLUE_GREEN])
@pytest.mark.parametrize(
    "before", [nothing, rejected, against_another_champion, carried_out_before, on_other_bytes]
)
def test_without_a_verdict_to_promote_against_the_live_champion_the_gate_decides(
    home, monkeypatch, mode, before
):
    before(home)

    def judge(names, candidate, exam, stores, *, cause):
        made = home.verdict(candidate.version, Decision.INCONCLUSIVE)
        judged = Judged(verdict=made, candidate=candidate, ledger_row=1)
        return Judgement(judged, None, "", {})

    monkeypatch.setattr(rollout_verdicts, "judge", judge)
    monkeypatch.setattr(rollout_verdicts, "newest_exam", lambda *arguments: None)
    with pytest.raises(RolloutError, match="gate says inconclusive"):
        home.start(mode=mode)
    assert home.rows() == []


def test_what_cannot_start(home):
    home.verdict("2")
    with pytest.raises(RolloutError, match="without a reason"):
        home.start(reason=" ")
    with pytest.raises(RolloutError, match="live already"):
        home.start("1")
    home.digests["2"] = "e" * 64
    with pytest.raises(ArtifactMissing):
        home.start(mode=RolloutMode.SHADOW)
    home.version("2")
    begun = home.start()
    again = home.start()
    assert (again.changed, again.standing) == (False, begun.standing)
    for version, mode in (("3", RolloutMode.CANARY), ("2", RolloutMode.SHADOW)):
        with pytest.raises(RolloutError, match="one at a time"):
            home.start(version, mode=mode)
    assert len(home.rows()) == 1


def test_a_version_of_another_feature_service_cannot_stand_beside_the_live_one(home, monkeypatch):
    record = training_set("6" * 64)
    other = home.candidate("2").model_copy(update={"training_set": record})
    monkeypatch.setattr(rolling_out, "candidate_of", lambda *arguments: other)
    with pytest.raises(RolloutError, match="cannot answer what the other is asked"):
        home.start(mode=RolloutMode.SHADOW)


def test_moves_by_hand_can_be_repeated_and_do_nothing_twice(home):
    names, stores = home.names, home.stores
    with pytest.raises(RolloutError, match="has no rollout"):
        rolling_out.abort(names, stores, reason="x")
    home.verdict("2")
    home.start()
    for move, state in (
        (rolling_out.pause, RolloutState.PAUSED),
        (rolling_out.resume, RolloutState.RUNNING),
    ):
        assert move(names, stores, reason="x").standing.rollout.state is state
        assert not move(names, stores, reason="x").changed
    assert rolling_out.advance(names, stores, reason="no traffic at night").changed
    assert not rolling_out.advance(names, stores, reason="no traffic at night").changed
    assert newest(home.database, home.model).step == 1
    rolling_out.pause(names, stores, reason="wait")
    with pytest.raises(RolloutError, match="is paused"):
        rolling_out.advance(names, stores, reason="go on")
    home.served("2", "canary")
    assert "paused" in home.look()
    aborted = rolling_out.abort(names, stores, reason="enough")
    assert aborted.standing.rollout.state is RolloutState.ABORTED
    assert not rolling_out.abort(names, stores, reason="enough").changed
    for move in (rolling_out.pause, rolling_out.resume, rolling_out.advance):
        with pytest.raises(RolloutError, match="is aborted"):
            move(names, stores, reason="late")
    assert home.live() == "1"
    assert home.start(reason="again").standing.rollout.number == 2


def test_a_hand_cannot_push_a_candidate_past_a_guard(home):
    home.verdict("2")
    home.start()
    home.served("2", "canary", 60, errors=30)
    home.served("1", "live", 2000)
    moved = rolling_out.advance(home.names, home.stores, reason="trust me")
    assert moved.standing.rollout.state is RolloutState.ABORTED


def test_a_shadow_needs_no_verdict_and_promotes_nothing(home):
    home.start(mode=RolloutMode.SHADOW)
    assert active_rollouts(home.database)[home.model].share == 0
    assert "100 of 100 mirrored rows" in home.look()
    rolling_out.advance(home.names, home.stores, reason="seen enough")
    assert newest(home.database, home.model).state is RolloutState.FINISHED
    assert home.live() == "1"


def test_where_a_human_is_wanted_callers_see_nothing_before_the_approval(make):
    home = make(approval="human", bootstrap={"approval": "automatic"})
    home.verdict("2")
    waiting = home.start().standing.rollout
    assert (waiting.state, waiting.active) == (RolloutState.PENDING, False)
    assert home.model not in active_rollouts(home.database)
    with pytest.raises(RolloutError, match="is pending"):
        rolling_out.advance(home.names, home.stores, reason="go on")
    assert "waits for an approver" in home.look()
    decide(home, waiting.approval)
    assert read(home).approved is None, "the approval lets the rollout begin, and swaps nothing"
    assert "at step 1" in home.look()
    home.served("2", "canary")
    home.look()
    home.look()
    assert home.live() == "2"
    assert newest(home.database, home.model).state is RolloutState.PROMOTED
    assert home.rows("promotion")[0].payload["approval"] == waiting.approval


def test_an_approval_does_not_outlive_its_rollout(make):
    home = make(approval="human", bootstrap={"approval": "automatic"})
    home.verdict("2")
    number = home.start().standing.rollout.approval
    decide(home, number)
    home.look()
    rolling_out.abort(home.names, home.stores, reason="second thoughts")
    assert read(home).approved is None
    assert approvals.request_of(home.database, number).state == "void"
    assert carrying_out.complete(home.names, number, home.stores).status == "void"
    assert home.live() == "1"
    again = home.start().standing.rollout
    assert (again.state, again.approval != number) == (RolloutState.PENDING, True)


def test_a_rejected_request_aborts_what_waited_for_it(make):
    home = make(approval="human", bootstrap={"approval": "automatic"})
    home.verdict("2")
    decide(home, home.start().standing.rollout.approval, approve=False)
    home.look()
    assert newest(home.database, home.model).state is RolloutState.ABORTED
    with pytest.raises(RolloutError, match="rejected"):
        home.start()


def test_blue_green_goes_live_at_once_and_back_at_the_first_fault(home):
    home.verdict("2")
    home.served("1", "live", 2000, at=datetime.now(UTC) - timedelta(minutes=5), seconds=0.01)
    home.start(mode=RolloutMode.BLUE_GREEN)
    assert "time to load" not in home.look()
    assert "promoted" in home.look(later=timedelta(seconds=11))
    assert home.live() == "2"
    home.served("2", "live", 150, seconds=0.2)
    assert "Version 1 is live again" in home.look()
    assert home.live() == "1"
    assert home.alerts() == [AlertKind.ROLLED_BACK]
    [row] = home.rows("rollback")
    assert (row.principal, row.payload["previous"]) == (SCHEDULER, "2")
    assert "200 ms on average" in row.payload["reason"]


def test_a_failing_new_version_is_taken_back_once_and_never_further(home):
    home.promote("2")
    home.promote("3")
    home.served("3", "live", 100, errors=30)
    assert "Version 2 is live again" in home.look()
    # No worse than the version before it, then clearly so.
    home.served("2", "live", 100, errors=30)
    assert "Nothing speaks against it" in home.look()
    home.served("2", "live", 400, at=datetime.now(UTC) + timedelta(minutes=1), errors=400)
    assert "came by a rollback itself" in home.look()
    assert home.live() == "2"
    assert len(home.rows("rollback")) == 1
    assert home.alerts() == [AlertKind.ROLLED_BACK] * 2


def test_without_a_healthy_version_there_is_an_alert_and_nothing_else(home):
    home.served("1", "live", 100, errors=30)
    assert "no healthy earlier version" in home.look()
    home.look()
    assert home.live() == "1"
    [raised] = alerts(home.database, subject=home.model)
    assert (raised.alert.kind, raised.alert.severity) == ("rolled_back", "critical")
    assert "stays live" in raised.alert.summary


def test_a_rollback_that_cannot_be_done_is_told_and_tried_again(home, monkeypatch):
    home.promote("2")
    home.served("2", "live", 100, errors=30)

    def missing(names, champion, stores):
        raise ArtifactMissing("gone", remedy="Restore it.")

    with monkeypatch.context() as patch:
        patch.setattr(rollback, "try_out", missing)
        assert "stays live: gone" in home.look()
    assert "Version 1 is live again" in home.look()


def test_a_sound_or_an_old_version_is_left_alone(home):
    home.promote("2")
    home.served("2", "live", 5000, errors=10)
    assert "Nothing speaks against it" in home.look()
    home.served("2", "live", 100, at=datetime.now(UTC) + timedelta(minutes=1), errors=100)
    assert "long enough" in home.look(later=timedelta(days=2))
    assert home.live() == "2"


def test_an_automatic_rollback_is_not_about_a_version_that_came_meanwhile(home):
    home.promote("2")
    revision = champion_of(home.database, home.model).revision
    home.promote("3")
    with pytest.raises(ChampionConflict, match="version 3 now"):
        rollback.roll_back(home.names, home.stores, reason="late", expected=revision)
    assert home.live() == "3"


DYING = """
import os, signal
from pathlib import Path
from aios_platform.artifacts import ArtifactStore
from aios_platform.components.model_lifecycle import carrying_out, rollout_moves
from aios_platform.components.model_lifecycle.names import Names
from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.components.model_lifecycle.rollout_watch import look_at_rollout
from aios_platform.resources.stores import Stores
from datetime import UTC, datetime
carrying_out.follow = lambda *_: ""
carrying_out.ensure_package = lambda *_: None
rollout_moves.record = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
names = Names(ModelDeclaration.model_validate_json(Path("{declared}").read_text()), Path("."))
look_at_rollout(names, Stores(ArtifactStore("{root}")), datetime.now(UTC))
"""


def test_killed_for_real_between_the_swap_and_its_row(home, tmp_path):
    home.verdict("2")
    home.start()
    home.served("2", "canary")
    home.look()
    assert newest(home.database, home.model).step == 1
    path = tmp_path / "declared.json"
    path.write_text(home.names.declaration.model_dump_json(exclude_unset=True))
    died = subprocess.run(
        [sys.executable, "-W", "ignore", "-c",
         DYING.format(declared=path, root=home.stores.artifacts.root)],
        cwd=PROJECT_ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "AIOS_HOME": str(settings().home_path),
             "PYTHONPATH": str(PROJECT_ROOT)},
    )  # fmt: skip
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert home.live() == "2"
    assert newest(home.database, home.model).state is RolloutState.RUNNING
    home.look()
    home.look()
    assert newest(home.database, home.model).state is RolloutState.PROMOTED
    assert len(home.rows("promotion")) == 2
    assert len(home.rows()) == 3


@pytest.fixture
def aios(monkeypatch):
    """The command `aios rollout`, on a home."""

    def call(home, *arguments):
        monkeypatch.setattr(command, "names_of", lambda model: home.names)
        monkeypatch.setattr("aios_platform.resources.stores.Stores", lambda: home.stores)
        return CliRunner().invoke(app, ["rollout", home.model, *arguments])

    return call


def test_the_command_starts_shows_and_moves(home, aios):
    assert "never had a rollout" in aios(home).output
    assert json.loads(aios(home, "status", "--json").output)["rollout"] is None
    assert isinstance(aios(home, "start", "--reason", "x").exception, RolloutError)
    home.verdict("2")
    begun = aios(home, "start", "--version", "2", "--reason", "x", "--json")
    assert begun.exit_code == 0
    shown = json.loads(begun.output)
    assert (shown["changed"], shown["share"], shown["rollout"]["mode"]) == (True, 0.1, "canary")
    home.served("2", "canary", 40)
    said = aios(home, "status").output
    assert "canary of version 2 beside 1: running" in said
    assert "60 of 100 candidate requests" in said
    after = json.loads(aios(home, "status", "--json").output)
    assert (after["next"]["action"], after["next"]["evidence"]["requests"]) == ("wait", 40)
    for verb, said in (
        ("pause", "is paused"),
        ("resume", "is running"),
        ("advance", "at step 2"),
        ("abort", "is aborted"),
    ):
        assert said in aios(home, verb, "--reason", verb).output
    assert "abort" in aios(home, "status").output
    assert isinstance(aios(home, "pause").exception, RolloutError)


def test_the_command_says_that_it_waits_for_a_person(make, aios):
    home = make(approval="human", bootstrap={"approval": "automatic"})
    home.verdict("2")
    begun = aios(home, "start", "--version", "2", "--reason", "x")
    assert begun.exit_code == 4
    assert "aios approvals approve" in begun.output
    assert "waits for an approver" in aios(home).output


def decide(home, number, approve=True):
    asked = approvals.request_of(home.database, number)
    approvals.decide(
        home.database, number, approve=approve, reason="seen", evidence_digest=asked.evidence_digest
    )


def read(home):
    return read_state(
        home.names.declaration, home.names, home.stores.artifacts, home.database,
        datetime(2013, 1, 2, tzinfo=UTC),
    )  # fmt: skip
