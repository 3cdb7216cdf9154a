"""A Redis of one test's own, with a password; Debian's package `redis-server` has the program."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.daemon.stand import free_port

PASSWORD = "not-a-guess"


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """Run one on loopback; its address, as Feast takes it. Skips where there is none."""
    redis = pytest.importorskip("redis")
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed")
    port = free_port()
    process = subprocess.Popen(
        [program, "--bind", "127.0.0.1", "--port", str(port), "--requirepass", PASSWORD,
         "--save", "", "--appendonly", "no", "--dir", str(folder)],
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        from redis.backoff import ConstantBackoff
        from redis.retry import Retry

        with redis.Redis(
            port=port, password=PASSWORD, retry=Retry(ConstantBackoff(0.1), 100)
        ) as client:
            client.ping()
        yield f"127.0.0.1:{port},password={PASSWORD}"
    finally:
        process.terminate()
        process.wait(20)
