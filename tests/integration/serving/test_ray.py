"""The gateway under a local Ray: replicas answer what the model itself does."""

import json
import os
import subprocess
import sys

import pyarrow as pa
import pytest

from aios_platform.inference.session import Session
from aios_platform.settings import PROJECT_ROOT
from tests.served_models import declare, make_champion, network

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(280)]
MODEL = "under_ray"
ROWS = [
    {"size": 3.5, "weight": 0.25, "colour": "red"},
    {"size": 900.0, "weight": None, "colour": "blue"},
]
SCRIPT = """
import json, os, socket, sys, urllib.error, urllib.request
import ray
from ray import serve
from aios_platform.serving.ray_serve import ray_application

with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
ours = {name: value for name, value in os.environ.items() if name.startswith("AIOS_")}
ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
         runtime_env={"env_vars": ours})
serve.start(http_options={"host": "127.0.0.1", "port": port})
serve.run(ray_application(1, cpus=0.1), name="gateway", route_prefix="/")
found = []
for path, body in json.load(sys.stdin):
    asked = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={"content-type": "application/json"},
    )
    try:
        with urllib.request.urlopen(asked, timeout=60) as answer:
            found.append([answer.status, json.load(answer)])
    except urllib.error.HTTPError as refused:
        found.append([refused.code, json.load(refused)])
print(json.dumps(found), flush=True)
serve.shutdown()
ray.shutdown()
"""


def test_replicas_under_ray_answer_what_the_model_does(database, store, tmp_path):
    pytest.importorskip("ray")
    content = network(seed=7)
    declare(tmp_path / "defs", MODEL)
    make_champion(database, store, content, model=MODEL)
    predict = f"/v1/models/{MODEL}:predict"
    asked = [
        [predict, {"instances": ROWS}],
        [predict, {"instance": {"size": -1, "weight": 0, "colour": "red"}}],
        ["/readyz", None],
    ]
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        cwd=PROJECT_ROOT,
        env=os.environ
        | {
            "AIOS_HOME": str(tmp_path),
            "AIOS_DATABASE_URL": database.server_url,
            "AIOS_ARTIFACTS": store.root,
            "AIOS_DEFS": str(tmp_path / "defs"),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_TMPDIR": "/tmp",
        },
        timeout=240,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    # Ray says things of its own there.
    [said] = [line for line in ended.stdout.splitlines() if line.startswith("[[")]
    (status, answer), (refused, problem), (ready, state) = json.loads(said)
    assert status == 200
    assert answer["version"] == "1"
    expected = Session(content).predict(pa.Table.from_pylist(ROWS)).tolist()
    assert [row["probability"] for row in answer["predictions"]] == expected
    assert (refused, problem["code"]) == (422, "invalid_input")
    assert ready == 200
    assert state["models"][MODEL]["version"] == "1"
