"""`aios ledger` as a person or a pipeline runs it."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import text

from aios_platform.cli import ledger as commands
from aios_platform.cli import main
from aios_platform.ledger.entries import append

pytestmark = [pytest.mark.postgres]
DOCUMENT = Path(__file__).parents[3] / "docs" / "ledger.md"


@pytest.fixture
def aios(own_database, tmp_path, monkeypatch, capsys):
    """Runs a command on a ledger and an artifact root of the test's own; status and output."""
    from aios_platform import settings

    monkeypatch.setattr("aios_platform.database.database", lambda: own_database)
    # It takes log lines and warnings away from the test.
    monkeypatch.setattr("aios_platform.telemetry.configure", lambda _: None)
    monkeypatch.setenv("AIOS_ARTIFACTS", str(tmp_path / "artifacts"))
    settings.settings.cache_clear()

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["aios", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return ended.value.code or 0, said.out + said.err

    yield run
    monkeypatch.undo()
    settings.settings.cache_clear()


def test_show_prints_rows_for_people_and_for_machines(aios, own_database, write):
    write(own_database, 3)
    code, said = aios("ledger", "show", "m", "--limit", "2")
    assert (code, [line.split()[0] for line in said.splitlines()]) == (0, ["3", "2"])
    assert not re.search(r"[^\x20-\uffff\n]", said)
    code, said = aios("ledger", "show", "--json")
    assert [json.loads(line)["seq"] for line in said.splitlines()] == [3, 2, 1]
    code, said = aios("ledger", "show", "--row", "2")
    assert "previous" in said
    assert '"number": 2' in said
    code, said = aios("ledger", "show", "--row", "9")
    assert (code, "has no row 9" in said) == (1, True)


def test_verify_says_where_it_broke_and_fails(aios, own_database, write):
    assert aios("ledger", "verify") == (0, "The ledger has no rows.\n")
    write(own_database, 4)
    code, said = aios("ledger", "verify")
    assert (code, said.splitlines()[0]) == (
        0, "The chain holds: 4 rows, 1 to 4, 0 anchors met."
    )  # fmt: skip
    with own_database.tampering() as connection:
        connection.execute(text("DELETE FROM ledger WHERE seq = 2"))
    code, said = aios("ledger", "verify")
    assert code == 1
    assert "broken at row 2 (missing): row 2 is missing between row 1 and row 3" in said
    code, said = aios("ledger", "verify", "--json")
    assert (code, json.loads(said)["broken"]["seq"]) == (1, 2)


def test_anchors_are_made_kept_and_used(aios, own_database, write, tmp_path):
    assert "nothing to anchor" in aios("ledger", "anchor")[1]
    write(own_database, 4)
    code, line = aios("ledger", "anchor")
    assert code == 0
    [file] = (tmp_path / "artifacts" / "ledger" / "anchors").iterdir()
    assert json.loads(file.read_text())["hash"] == line.strip().split(":")[1]
    with own_database.tampering() as connection:
        connection.execute(text("DELETE FROM ledger WHERE seq = 4"))
        connection.execute(
            text("UPDATE ledger_head SET seq = 3, hash = (SELECT hash FROM ledger WHERE seq = 3)")
        )
    code, said = aios("ledger", "verify")
    assert (code, "row 4 (truncated)" in said) == (1, True)
    kept = tmp_path / "elsewhere.json"
    file.rename(kept)
    assert aios("ledger", "verify")[0] == 0
    for given in (line.strip(), str(kept)):
        code, said = aios("ledger", "verify", "--anchor", given)
        assert (code, "row 4 (truncated)" in said) == (1, True)


def test_an_export_is_verified_by_the_command_and_by_a_stranger(
    aios, own_database, write, tmp_path
):
    write(own_database, 3)
    with own_database.begin() as connection:
        append(
            connection, kind='quo"te', subject="naïve\x1f\x7f\u2028 \U0001f600", key="\\ / \t\n",
            payload={"é": [1e-7, 1e22, 10**25, -0.0, True, None, '"\\\x00'[:2]]},
            evidence=["a" * 64, "b" * 64],
        )  # fmt: skip
    file = tmp_path / "export.jsonl"
    assert aios("ledger", "export", "--output", str(file))[0] == 0
    code, said = aios("ledger", "verify", "--file", str(file))
    assert (code, said.splitlines()[0]) == (0, "The chain holds: 4 rows, 1 to 4, 0 anchors met.")
    head = said.splitlines()[1].removeprefix("Head ")

    [snippet] = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert len(snippet.splitlines()) <= 20

    def stranger() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-I", "-c", snippet, str(file)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    assert stranger().stdout.strip() == head
    file.write_bytes(file.read_bytes().replace(b'"number":2', b'"number":3'))
    assert "row 2 was altered" in stranger().stderr
    assert aios("ledger", "verify", "--file", str(file))[0] == 1


def test_an_export_goes_to_standard_output_too(own_database, write):
    write(own_database, 3)
    from aios_platform.ledger.chain import lines

    assert [json.loads(line)["seq"] for line in lines(own_database, after=1)] == [2, 3]
    assert {command.name for command in commands.app.registered_commands} == {
        "show", "verify", "anchor", "export",
    }  # fmt: skip


def test_no_key_is_an_argument_of_any_command():
    from aios_platform.cli import principals

    for command in principals.app.registered_commands:
        names = set(command.callback.__annotations__)
        assert not {name for name in names if "key" in name or "secret" in name}


def test_the_documents_table_names_every_fault():
    from aios_platform.ledger.verification import Fault

    told = re.findall(r"^\| `([a-z]+)` \|", DOCUMENT.read_text(), re.MULTILINE)
    assert set(Fault) <= set(told)
