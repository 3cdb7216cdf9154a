"""The runbook has what alerts point to, and names what exists."""

import re
import shlex

import pytest
import typer

from aios_platform.cli.main import app
from aios_platform.contracts.alerts import RUNBOOK, AlertKind
from aios_platform.settings import PROJECT_ROOT
from tests.unit.alerts.receivers import an_alert

TEXT = (PROJECT_ROOT / RUNBOOK).read_text()
SECTIONS = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL))


def options_of(words: list[str]) -> set[str] | None:
    """The options of a command; None where there is no such command."""
    found = typer.main.get_command(app)
    for word in words:
        if not hasattr(found, "commands"):
            break
        found = found.commands.get(word)
        if found is None:
            return None
    return {option for parameter in found.params for option in parameter.opts} | {"--help"}


@pytest.mark.parametrize("kind", AlertKind)
def test_each_kind_has_a_section_that_says_what_where_and_what_to_do(kind):
    assert an_alert(kind=kind).runbook == f"docs/runbook.md#{kind}"
    section = SECTIONS[str(kind)]
    for part in ("**Means.**", "**Look.**", "**Do.**"):
        assert section.count(part) == 1, part


def test_no_section_is_about_nothing():
    assert set(SECTIONS) == set(AlertKind)


def test_every_command_that_it_names_exists_with_its_options():
    named = re.findall(r"(?:`|^)aios ([^`#\n]+)", TEXT, re.MULTILINE)
    assert len(named) > 20
    for command in named:
        words = shlex.split(command)
        options = options_of([word for word in words if not word.startswith("-")])
        assert options is not None, command
        assert {word for word in words if word.startswith("--")} <= options, command


def test_every_link_leads_somewhere():
    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        file, _, anchor = target.partition("#")
        text = (PROJECT_ROOT / "docs" / file).read_text() if file else TEXT
        headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
        assert anchor in {heading.lower().replace(" ", "-") for heading in headings}, target
