"""MLflow's scoring server on the same model: logs it to a folder, then serves it."""

import os
import sys
from pathlib import Path

import mlflow
import numpy as np
import onnx

if __name__ == "__main__":
    place = Path(os.environ["MODEL"]).parent / "mlflow"
    if not place.exists():
        model = onnx.load(os.environ["MODEL"])
        example = np.zeros((1, 20), np.float32)
        mlflow.onnx.save_model(
            model,
            place,
            signature=mlflow.models.infer_signature(example, np.zeros(1, np.float32)),
            onnx_session_options={"intra_op_num_threads": 1, "inter_op_num_threads": 1},
        )
    program = str(Path(sys.executable).with_name("mlflow"))
    command = [program, "models", "serve", "-m", str(place), "--env-manager", "local"]
    os.execv(program, [*command, "-h", "127.0.0.1", "-p", sys.argv[1], "--workers", "1"])
