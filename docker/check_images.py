"""Runs what the Dockerfiles' build stages run, here and in order: `docker/check_images.py`.

For machines without a container engine. Each COPY and RUN of the stage `build` is carried out in a
temporary folder that stands for /opt/aios, with a virtual environment of its own; then the image's
programs are asked what an image must answer. Nothing of the machine's own environment is used.
"""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
HOME = "/opt/aios"
# Modules that an image has none of.
ABSENT = {
    "gateway": ("dagster", "torch", "mlflow", "great_expectations", "evidently"),
    "platform": (),
}
ASKED = {
    "gateway": (
        ["aios", "serve", "--help"],
        # What the server imports, and what Feast imports for it by the names in its file.
        [
            "python",
            "-W",
            "ignore",
            "-c",
            "import aios_platform.serving.server, aios_platform.features.offline_store, "
            "aios_platform.features.online_store, aios_platform.features.online_plan",
        ],
    ),
    "platform": (
        ["aios", "--help"],
        ["aios", "service", "--help"],
        ["dagster", "api", "grpc-health-check", "--help"],
        [
            "python",
            "-W",
            "ignore",
            "-c",
            "import torch, dagster, mlflow, aios_platform.definitions",
        ],
    ),
}


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """Instructions of the stage `build`, continued lines joined."""
    text = re.sub(r"\\\n", " ", dockerfile.read_text())
    found, inside = [], False
    for line in text.splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            inside = rest.endswith(" AS build")
        elif inside and word and not word.startswith("#"):
            found.append((word, rest.strip()))
    return found


def carry_out(image: str, place: Path) -> None:
    """Do what the build stage does, with `place` for /opt/aios."""
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(place), "TMPDIR": tempfile.gettempdir(),
        # Packages come from where this machine has them.
        **{k: v for k, v in os.environ.items() if k.startswith(("PIP_", "UV_", "SSL_"))},
    }  # fmt: skip
    links = os.environ.get("PIP_FIND_LINKS")
    if links:
        environment["UV_FIND_LINKS"] = links
    for word, rest in instructions(ROOT / "docker" / f"{image}.Dockerfile"):
        print(f"  {word} {rest}", flush=True)
        if word == "ARG":
            name, _, default = rest.partition("=")
            environment[name] = default.strip('"')
        elif word == "COPY":
            *sources, target = shlex.split(rest)
            for source in sources:
                there = place / target if target != "./" else place / Path(source).name
                there.parent.mkdir(parents=True, exist_ok=True)
                if (ROOT / source).is_dir():
                    shutil.copytree(
                        ROOT / source, there, ignore=shutil.ignore_patterns("__pycache__")
                    )
                else:
                    shutil.copyfile(ROOT / source, there)
        elif word == "RUN":
            # The cache spares a second download; an image has none to share.
            command = rest.replace(HOME, str(place)).replace("--no-cache ", "")
            command = command.replace("-m venv", "-m venv --clear")
            subprocess.run(
                ["sh", "-euc", command.replace("python -m", f"{sys.executable} -m", 1)],
                cwd=place, env=environment, check=True,
            )  # fmt: skip


def answers(image: str, place: Path) -> None:
    """Ask the image's programs, as a user without rights to write in it would."""
    path = f"{place}/venv/bin"
    environment = {"PATH": f"{path}:/usr/bin:/bin", "AIOS_HOME": f"{place}/state"}
    for command in ASKED[image]:
        print(f"  $ {' '.join(command)}", flush=True)
        subprocess.run(
            [f"{path}/{command[0]}", *command[1:]], cwd=place, env=environment, check=True,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
    for module in ABSENT[image]:
        found = f"import importlib.util as u; raise SystemExit(u.find_spec('{module}') is not None)"
        subprocess.run([f"{path}/python", "-c", found], cwd=place, env=environment, check=True)
        print(f"  {module} is not in it", flush=True)


def serve(place: Path) -> None:
    """Let the gateway's image serve a version, and hold its answer to what the bytes give."""
    sys.path.insert(0, str(ROOT))
    import numpy as np
    import onnxruntime

    from aios_platform.artifacts import ArtifactStore
    from aios_platform.database import connect_server
    from aios_platform.embedded import PasswordServer
    from aios_platform.settings import Settings
    from tests.served_models import declare, make_champion, network, pack

    state = place / "state"
    server, content = PasswordServer(state / "postgres", free_port()), network()
    url = server.start()
    process = None
    try:
        database = connect_server(Settings(database_url=url, home=state))
        database.prepare()
        store = ArtifactStore(str(state / "artifacts"))
        declare(state / "defs")
        pack(store, content, model="toy")
        make_champion(database, store, content)
        database.close()
        port = free_port()
        process = subprocess.Popen(
            [f"{place}/venv/bin/aios", "serve", "--port", str(port)],
            cwd=place,
            env={
                "PATH": f"{place}/venv/bin:/usr/bin:/bin", "AIOS_PROFILE": "team",
                "AIOS_HOME": str(state), "AIOS_DATABASE_URL": url,
                "AIOS_DEFS": str(state / "defs"),
            },
        )  # fmt: skip
        row = {"size": 3.5, "weight": 0.25, "colour": "red"}
        answer = ask(f"http://127.0.0.1:{port}/v1/models/toy:predict", {"instances": [row]})
        served = answer["predictions"][0]["probability"]
        session = onnxruntime.InferenceSession(content)
        inputs = {
            entry.name: np.array(
                [[row[entry.name]]] if len(entry.shape) == 2 else [row[entry.name]],
                dtype=object if "string" in entry.type else np.float32,
            )
            for entry in session.get_inputs()
        }
        expected = float(np.ravel(session.run(None, inputs)[0])[-1])
        print(f"  serves {served:.6f}; the bytes give {expected:.6f}", flush=True)
        if not abs(served - expected) < 1e-6:
            raise SystemExit("the gateway's image answers something else than its model")
    finally:
        if process is not None:
            process.terminate()
            process.wait(30)
        server.stop()


def ask(url: str, body: dict[str, object]) -> dict[str, Any]:
    """Post until it is answered with 200."""
    limit = time.monotonic() + 90
    while True:
        request = urllib.request.Request(
            url, json.dumps(body).encode(), {"content-type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                found: dict[str, Any] = json.load(answer)
                return found
        except OSError:
            if time.monotonic() > limit:
                raise
            time.sleep(0.5)


def free_port() -> int:
    """A port on loopback that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> None:
    """Check the images named on the command line, or both."""
    for image in sys.argv[1:] or ["gateway", "platform"]:
        print(image, flush=True)
        keep = os.environ.get("AIOS_IMAGE_FOLDER")
        with tempfile.TemporaryDirectory() as folder:
            place = Path(keep or folder) / image
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(parents=True)
            carry_out(image, place)
            answers(image, place)
            if image == "gateway":
                serve(place)


if __name__ == "__main__":
    main()
