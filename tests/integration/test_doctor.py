"""`aios doctor`: each thing that can be wrong with an installation is named, with its remedy."""

import json
import sys
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from aios_platform import doctor
from aios_platform.cli import main
from aios_platform.database import newest_revision
from aios_platform.doctor import State, findings
from aios_platform.ledger.claims import DAEMON_LOCK
from aios_platform.settings import Settings

pytestmark = [pytest.mark.postgres]


@pytest.fixture
def look(own_database, tmp_path, monkeypatch):
    """Runs the checks on a database and a home of the test's own; findings by their names."""
    monkeypatch.setattr(doctor, "connect_server", lambda _: own_database)

    def look_(**settings):
        configuration = Settings(**({"home": tmp_path / "home"} | settings))
        return {found.check: found for found in findings(configuration)}

    return look_


def test_a_sound_installation_lacks_the_daemon_only(look, own_database, tmp_path):
    found = look()
    assert list(found) == [
        "packages", "extensions", "declarations", "disk", "artifacts", "database", "clock",
        "schema", "daemon",
    ]  # fmt: skip
    states = {name: one.state for name, one in found.items()}
    assert states.pop("daemon") is State.LOOK
    assert set(states.values()) == {State.OK}
    assert "digits, flight_delay" in found["declarations"].said
    assert newest_revision() in found["schema"].said
    assert list((tmp_path / "home/artifacts").iterdir()) == []
    with own_database.exclusive(DAEMON_LOCK):
        assert look()["daemon"].state is State.OK
        # Looking does not take the lock away.
        with own_database.exclusive(DAEMON_LOCK) as second:
            assert not second.held


@pytest.mark.parametrize(
    ("revision", "state", "said"),
    [
        ("0001", State.LOOK, "The schema is at 0001"),
        ("9999", State.WRONG, "The schema is at 9999"),
        (None, State.LOOK, "The schema is at no revision"),
    ],
)
def test_a_schema_of_another_version_is_named_and_left_alone(
    look, own_database, revision, state, said
):
    with own_database.begin() as connection:
        connection.execute(text("DELETE FROM alembic_version"))
        if revision is not None:
            connection.execute(
                text("INSERT INTO alembic_version VALUES (:revision)"), {"revision": revision}
            )
    found = look()
    assert (found["schema"].state, "daemon" in found) == (state, False)
    assert found["schema"].said.startswith(said)
    with own_database.begin() as connection:
        left = connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all()
    assert left == ([] if revision is None else [revision])


def test_an_artifact_root_that_cannot_be_written_is_wrong(look, tmp_path):
    (tmp_path / "file").write_text("in the way")
    found = look(artifacts=str(tmp_path / "file/artifacts"))["artifacts"]
    assert found.state is State.WRONG
    assert "AIOS_ARTIFACTS" in found.remedy
    assert look(artifacts="memory://doctor")["artifacts"].state is State.OK


def test_little_room_and_a_wrong_clock_are_wrong(look, monkeypatch):
    class Late(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(UTC) + timedelta(hours=1)

    monkeypatch.setattr(doctor, "datetime", Late)
    monkeypatch.setattr(doctor, "LEAST_FREE_BYTES", 1 << 60)
    found = look()
    assert (found["disk"].state, found["clock"].state) == (State.WRONG, State.WRONG)
    assert "3600.0 s apart" in found["clock"].said or "3599.9 s apart" in found["clock"].said


def test_packages_of_other_versions_than_the_locks_are_named(look, tmp_path, monkeypatch):
    import pydantic

    monkeypatch.setattr(doctor, "PROJECT_ROOT", tmp_path)
    assert look()["packages"].state is State.LOOK
    (tmp_path / "requirements.lock").write_text("pydantic==0.1\nnot-installed-here==1.0\n")
    found = look()["packages"]
    assert (found.state, found.remedy) == (State.LOOK, "make setup")
    assert f"pydantic {pydantic.VERSION} (locked: 0.1)" in found.said
    assert "not-installed-here" not in found.said


def test_a_wrong_declaration_is_wrong_and_the_rest_is_looked_at(look, tmp_path, monkeypatch):
    folder = tmp_path / "defs" / "churn"
    folder.mkdir(parents=True)
    (folder / "defs.yaml").write_text(
        "type: aios_platform.components.ModelLifecycle\nattributes: {ownr: me}\n"
    )
    from aios_platform.components.model_lifecycle.discovery import declared_models

    monkeypatch.setattr(doctor, "declared_models", lambda: declared_models(tmp_path / "defs"))
    found = look()
    assert found["declarations"].state is State.WRONG
    assert "churn" in found["declarations"].said
    assert found["schema"].state is State.OK


def test_the_command_ends_with_one_where_something_is_wrong(monkeypatch, capsys, tmp_path):
    from aios_platform import settings

    monkeypatch.setenv("AIOS_DATABASE_URL", "postgresql://me:secret@127.0.0.1:1/postgres")
    monkeypatch.setenv("AIOS_HOME", str(tmp_path))
    monkeypatch.setattr("aios_platform.telemetry.configure", lambda _: None)
    settings.settings.cache_clear()
    try:
        codes, said = [], []
        for options in ([], ["--json"]):
            monkeypatch.setattr(sys, "argv", ["aios", "doctor", *options])
            with pytest.raises(SystemExit) as ended:
                main()
            codes.append(ended.value.code)
            said.append(capsys.readouterr().out)
    finally:
        monkeypatch.undo()
        settings.settings.cache_clear()
    assert codes == [1, 1]
    assert "wrong database     Postgres on 127.0.0.1:1 does not answer" in said[0]
    assert "correct AIOS_DATABASE_URL" in said[0]
    assert [json.loads(line)["state"] for line in said[1].splitlines()][-1] == "wrong"
    assert "secret" not in "".join(said)
