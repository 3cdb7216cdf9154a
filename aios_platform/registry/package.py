"""A trained model as the folder that MLflow knows as an ONNX model. No pickle, no code."""

import hashlib
from pathlib import Path
from typing import Any

from aios_platform.contracts.answers import ANSWERS_PROPERTY, AnswerSchema
from aios_platform.contracts.datasets import FeatureSchema, FieldKind
from aios_platform.errors import RegistryError
from aios_platform.registry.origin import library_versions

MODEL_FILE = "model.onnx"
ALLOWED = frozenset({"MLmodel", MODEL_FILE, "conda.yaml", "python_env.yaml", "requirements.txt"})


def signature_of(schema: FeatureSchema, answers: AnswerSchema | None = None) -> Any:
    """MLflow's signature: every feature optional, a float column per answer column."""
    from mlflow.models import ModelSignature
    from mlflow.types import DataType
    from mlflow.types.schema import Array, ColSpec, Schema

    kinds: dict[FieldKind, Any] = {
        FieldKind.NUMERICAL: "float",
        FieldKind.CATEGORICAL: "string",
        FieldKind.TEXT: "string",
        FieldKind.VECTOR: Array(DataType.float),
    }
    return ModelSignature(
        inputs=Schema([ColSpec(kinds[f.kind], f.name, required=False) for f in schema.fields]),
        outputs=Schema([ColSpec("float", name) for name in (answers or AnswerSchema()).columns]),
    )


def write_package(
    folder: Path,
    onnx: bytes,
    schema: FeatureSchema,
    *,
    model_id: str,
    run_id: str,
    location: str,
) -> None:
    """Write the model's folder.

    Args:
        folder: Does not exist yet.
        onnx: The model; these very bytes end up in the folder.
        schema: Its inputs.
        model_id: MLflow's id of the logged model.
        run_id: The run that trained it.
        location: Where the folder will be stored.

    Raises:
        RegistryError: The folder holds a file that is not on the list.
    """
    import mlflow.onnx
    import onnx as onnx_format
    from mlflow.models import Model

    model = onnx_format.load_from_string(onnx)
    mlflow.onnx.save_model(
        model,
        str(folder),
        mlflow_model=Model(
            artifact_path=location, run_id=run_id, model_uuid=model_id, model_id=model_id
        ),
        signature=signature_of(schema, _answers(model)),
        # Given, since inferring them takes a child process and up to a minute.
        pip_requirements=[f"onnxruntime=={library_versions()['onnxruntime']}"],
        onnx_execution_providers=["CPUExecutionProvider"],
        save_as_external_data=False,
    )
    stored = folder / MODEL_FILE
    if hashlib.sha256(stored.read_bytes()).digest() != hashlib.sha256(onnx).digest():
        stored.write_bytes(onnx)
    check_package(folder)


def _answers(model: Any) -> AnswerSchema | None:
    """What an exported model says of its answers; None: a probability."""
    said = {entry.key: entry.value for entry in model.metadata_props}.get(ANSWERS_PROPERTY)
    return None if said is None else AnswerSchema.model_validate_json(said)


def check_package(folder: Path) -> None:
    """Check a model's folder against the list of allowed files.

    Raises:
        RegistryError: It holds anything else; such a file could carry code.
    """
    found = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    if not found <= ALLOWED or MODEL_FILE not in found:
        raise RegistryError(
            f"The model's folder {folder} holds {sorted(found - ALLOWED)} besides, or lacks "
            f"{sorted(ALLOWED - found)}.",
            remedy="Do not use the model; register it again from its training.",
        )
