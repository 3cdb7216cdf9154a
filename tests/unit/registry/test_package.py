"""The folder that MLflow knows as a model: the bytes as they are, and no code."""

import hashlib

import pytest

from aios_platform.contracts.datasets import FeatureField, FeatureSchema, FieldKind
from aios_platform.errors import RegistryError
from aios_platform.registry.origin import git_commit, library_versions
from aios_platform.registry.package import ALLOWED, MODEL_FILE, check_package, write_package
from tests.unit.inference.conftest import make_onnx

SCHEMA = FeatureSchema(
    fields=(
        FeatureField(name="delay", kind=FieldKind.NUMERICAL, origin="request"),
        FeatureField(name="carrier", kind=FieldKind.CATEGORICAL, origin="request"),
    )
)


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    folder = tmp_path_factory.mktemp("package") / "model"
    write_package(folder, make_onnx(), SCHEMA, model_id="m-1", run_id="r-1", location="/models/m-1")
    return folder


def test_the_package_holds_the_very_bytes_and_nothing_that_runs(package):
    stored = (package / MODEL_FILE).read_bytes()
    assert hashlib.sha256(stored).digest() == hashlib.sha256(make_onnx()).digest()
    assert {path.name for path in package.rglob("*")} == ALLOWED


def test_mlflow_knows_it_as_an_onnx_model_with_a_signature(package):
    from mlflow.models import Model

    model = Model.load(str(package))
    assert set(model.flavors) == {"onnx", "python_function"}
    assert model.flavors["python_function"]["loader_module"] == "mlflow.onnx"
    assert model.flavors["python_function"].get("code") is None
    assert model.signature.inputs.input_names() == ["delay", "carrier"]
    assert [str(kind) for kind in model.signature.inputs.input_types()] == [
        "DataType.float",
        "DataType.string",
    ]
    assert model.signature.outputs.input_names() == ["probability"]


@pytest.mark.parametrize("name", ["python_model.pkl", "code/loader.py", "weights.data"])
def test_any_other_file_is_refused(package, name):
    planted = package / name
    planted.parent.mkdir(exist_ok=True)
    planted.write_bytes(b"x")
    try:
        with pytest.raises(RegistryError, match="besides"):
            check_package(package)
    finally:
        planted.unlink()
        if planted.parent != package:
            planted.parent.rmdir()


def test_a_package_without_a_model_is_refused(tmp_path):
    with pytest.raises(RegistryError, match=MODEL_FILE):
        check_package(tmp_path)


def test_origin_names_a_commit_and_versions():
    assert git_commit()
    versions = library_versions()
    assert versions["torch"][0].isdigit()
    assert "not installed" not in versions.values()
