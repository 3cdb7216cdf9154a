"""Rules of the house that a reviewer should not have to remember."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
HEAVY = (
    "torch",
    "pytorch_lightning",
    "mlflow",
    "feast",
    "great_expectations",
    "evidently",
    "sklearn",
    "matplotlib",
    "onnx",
    "optuna",
    "pandas",
)
LONGEST = 400


def imported_by(statement: str) -> set[str]:
    """Top-level packages that a fresh interpreter has loaded after a statement."""
    script = f"{statement}\nimport sys\nprint()\nprint(*{{m.split('.')[0] for m in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "statement",
    [
        "from aios_platform.definitions import defs; defs().resolve_all_asset_specs()",
        "import aios_platform.cli",
        "import aios_platform.services, aios_platform.report",
    ],
    ids=["code location", "command line", "services"],
)
def test_loading_it_imports_no_heavy_library(statement):
    assert not imported_by(statement) & set(HEAVY)


def test_the_gateway_imports_neither_dagster_nor_what_trains():
    # pyarrow.dataset imports pandas by itself.
    unwanted = {*HEAVY, "dagster", "starlette"} - {"pandas"}
    assert not unwanted & imported_by("import aios_platform.serving.server")


def test_help_imports_neither_dagster_nor_a_database_driver():
    loaded = imported_by(
        "import sys; sys.argv = ['aios', '--help']\n"
        "from aios_platform.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass"
    )
    assert not loaded & {*HEAVY, "dagster", "sqlalchemy", "pyarrow", "polars", "duckdb"}


def test_files_are_short():
    long = {
        str(path.relative_to(ROOT)): lines
        for folder in ("aios_platform", "feature_repo")
        for path in (ROOT / folder).rglob("*.py")
        if (lines := len(path.read_text().splitlines())) > LONGEST
    }
    assert not long


def test_nothing_is_named_for_nothing_in_particular():
    forbidden = {"utils", "helpers", "helper", "util", "manager", "common", "misc"}
    assert not [p for p in (ROOT / "aios_platform").rglob("*.py") if p.stem in forbidden]


def test_every_package_can_be_seen_by_the_import_linter():
    folders = {path.parent for path in (ROOT / "aios_platform").rglob("*.py")}
    assert not [folder for folder in folders if not (folder / "__init__.py").exists()]


def test_workspace_and_dg_agree_on_the_code_location():
    workspace = yaml.safe_load((ROOT / "workspace.yaml").read_text())
    [module] = [entry["python_module"] for entry in workspace["load_from"]]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["dg"]["project"]
    assert module["location_name"] == project["code_location_name"]
    assert module["module_name"] == project["code_location_target_module"]


def test_the_lock_is_exact_and_names_no_host():
    lines = [
        line
        for line in (ROOT / "requirements.lock").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert "torch==2.13.0" in lines
    assert not [line for line in lines if "==" not in line or "://" in line or line.startswith("-")]


def test_the_dependencies_of_the_project_are_in_the_lock():
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    locked = {
        canonicalize_name(Requirement(line).name): Requirement(line)
        for line in (ROOT / "requirements.lock").read_text().splitlines()
        if line and not line.startswith("#")
    }
    groups = [entry for group in project["dependency-groups"].values() for entry in group]
    named = [entry for entry in groups if isinstance(entry, str)]
    for text in [*project["project"]["dependencies"], *named]:
        wanted = Requirement(text)
        found = locked[canonicalize_name(wanted.name)]
        [pin] = found.specifier
        assert wanted.specifier.contains(pin.version, prereleases=True), text
