"""Run by `test_interruption`: ingest the shop in child processes that die on the way.

Usage: python interrupted.py FOLDER. Prints one JSON line per child. The libraries are imported
once, before forking.
"""

import json
import os
import resource
import signal
import sys
from pathlib import Path

from aios_platform.artifacts import ArtifactStore
from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.data.ingest import ingest_window
from aios_platform.errors import StoreError

# Each of five datasets is published by its file and then by its list of versions.
KILL_POINTS = [1, 4, 6, 7, 8, 9, 10, 11]
DATASETS = ["quarantine/prices", "quarantine/orders", "validation", "raw/prices", "raw/orders"]


def child(work, *args):
    """Run in a child process, with standard output as its answer; -9 means killed."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        answer = work(*args)
        os.write(write, json.dumps(answer).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        text = pipe.read()
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return {"signal": os.WTERMSIG(status)}
    return json.loads(text)


def main(folder: Path) -> None:
    import duckdb  # noqa: F401
    import great_expectations  # noqa: F401

    declaration = ModelDeclaration.model_validate_json((folder / "shop.json").read_text())
    window = declaration.windows.window("2024-03-01")

    def state(store):
        found = {}
        for name in DATASETS:
            version = store.current(f"returns/{name}", window.key)
            found[name] = version and [
                version.version,
                version.digest,
                store.read(version).num_rows,
            ]
        return found

    def ingest(root):
        store = ArtifactStore(str(root))
        try:
            result = ingest_window(declaration, window, store)
        except StoreError as error:
            return {"error": str(error), "state": state(store)}
        return {"changed": result.changed, "state": state(store)}

    def look(root):
        return {"state": state(ArtifactStore(str(root)))}

    def killed(root, at):
        calls = 0
        publish = ArtifactStore._publish

        def dying(self, temporary, uri):
            nonlocal calls
            calls += 1
            if calls == at:
                os.kill(os.getpid(), signal.SIGKILL)
            publish(self, temporary, uri)

        ArtifactStore._publish = dying
        return ingest(root)

    def on_a_full_disk(root):
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1500, resource.RLIM_INFINITY))
        return ingest(root)

    def tell(name, answer):
        print(json.dumps({"name": name, **answer}), flush=True)  # noqa: T201

    def prepared(root):
        """A store that holds the delivery of before."""
        os.environ["SHOP_DELIVERY"] = "before"
        child(ingest, root)
        os.environ["SHOP_DELIVERY"] = "after"

    prepared(folder / "calm")
    tell("calm", child(ingest, folder / "calm"))
    for at in KILL_POINTS:
        root = folder / f"killed-{at}"
        prepared(root)
        tell("killed", child(killed, root, at))
        tell("seen", child(look, root))
        tell("finished", child(ingest, root))
        tell("again", child(ingest, root))
    prepared(folder / "full")
    tell("full", child(on_a_full_disk, folder / "full"))
    tell("freed", child(ingest, folder / "full"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
