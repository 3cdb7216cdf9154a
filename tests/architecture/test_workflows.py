"""The workflows of .github/: valid, pinned to what they need, and naming what exists."""

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from aios_platform.components.model_lifecycle.discovery import affected_models, declared_models

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
# SchemaStore's github-workflow.json (Apache-2.0).
SCHEMA = Path(__file__).with_name("github_workflow_schema.json")


def load(path):
    # YAML 1.1 reads the key `on` as true.
    document = yaml.safe_load(path.read_text())
    return {("on" if key is True else key): value for key, value in document.items()}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_follows_githubs_schema(path):
    import jsonschema

    jsonschema.Draft7Validator(json.loads(SCHEMA.read_text())).validate(load(path))


def test_the_schema_refuses_what_github_would():
    import jsonschema

    wrong = load(WORKFLOWS[0])
    job = next(iter(wrong["jobs"].values()))
    job["runs_on"] = job.pop("runs-on")
    validator = jsonschema.Draft7Validator(json.loads(SCHEMA.read_text()))
    assert not validator.is_valid(wrong)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_job_ends_and_may_only_read(path):
    workflow = load(path)
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 120
        needs = job.get("needs", [])
        assert ({needs} if isinstance(needs, str) else set(needs)) <= set(workflow["jobs"])


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_no_script_has_an_expression_in_it(path):
    # A branch name or an input would become a part of the script.
    for job in load(path)["jobs"].values():
        for step in job["steps"]:
            assert "${{" not in step.get("run", ""), step


def test_every_command_of_ours_exists_with_its_options():
    import typer

    from aios_platform.cli.main import app

    commands = typer.main.get_command(app).commands
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    found = 0
    for path in WORKFLOWS:
        for job in load(path)["jobs"].values():
            for step in job["steps"]:
                script = step.get("run", "").replace("\\\n", " ")
                for target in re.findall(r"\bmake ([a-z]+)", script):
                    assert target in targets
                for line in re.findall(r"\.venv/bin/aios ([^|>\n)]*)", script):
                    name, *rest = shlex.split(line)
                    options = {o for p in commands[name].params for o in p.opts}
                    used = {word for word in rest if word.startswith("--")}
                    assert used <= options, (name, used - options)
                    found += 1
    assert found >= 4


def test_a_changed_file_names_its_models():
    models = declared_models()
    sql = "aios_platform/defs/flight_delay/features/plane.sql"
    assert affected_models([sql, ""], models) == ["flight_delay"]
    assert affected_models(["feature_repo/flights.py"], models) == sorted(models)
    assert affected_models(["README.md", "aios_platform/defs/__init__.py"], models) == []
