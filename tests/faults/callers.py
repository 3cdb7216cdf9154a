"""Callers who ask without a pause, each on a connection that lives."""

import http.client
import json
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from tests.faults.gateway_process import JSON, SECONDS, Answer, asked


class Call(NamedTuple):
    """One request of a caller, and what became of it.

    Attributes:
        key: Its idempotency key.
        answer: What came back.
        broken: How often its connection broke while it was asked.
        waited: How often it was told that the first attempt is being answered.
    """

    key: str
    answer: Answer
    broken: int
    waited: int


class Callers:
    """So many callers in threads, from `start` until `stop` or until nobody listens any more.

    Args:
        port: Of the gateway.
        model: Whom they ask.
        row: Makes the n-th row of a caller.
        count: How many they are.
        keyed: Whether each request has an idempotency key, with which it is sent again.
    """

    def __init__(
        self,
        port: int,
        model: str,
        row: Callable[[int], dict[str, Any]],
        *,
        count: int = 8,
        keyed: bool = False,
    ) -> None:
        self._port, self._path = port, f"/v1/models/{model}:predict"
        self._row, self._keyed = row, keyed
        self._stop = threading.Event()
        self.calls: list[list[Call]] = [[] for _ in range(count)]
        self.dropped: list[str] = []
        """Requests without a key that were sent and got no answer: what was seen instead."""
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(count)]

    @property
    def every(self) -> list[Call]:
        """The calls of all of them."""
        return [call for calls in self.calls for call in calls]

    def all_got(self, version: str) -> bool:
        """Whether the last answer to each is this version's."""
        return all(calls[-1].answer.json["version"] == version for calls in self.calls)

    def start(self) -> "Callers":
        for thread in self._threads:
            thread.start()
        return self

    def until_each_has(self, more: int) -> None:
        """Wait until each caller got so many more answers."""
        wanted = [len(calls) + more for calls in self.calls]
        limit = time.monotonic() + SECONDS
        while any(len(c) < n for c, n in zip(self.calls, wanted, strict=True)):
            assert time.monotonic() < limit
            time.sleep(0.01)

    def stop(self) -> None:
        self._stop.set()
        self.join()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(SECONDS)
            assert not thread.is_alive()

    def _run(self, caller: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=SECONDS)
        while not self._stop.is_set():
            number = len(self.calls[caller])
            key = f"{caller}-{number}"
            body = json.dumps({"instance": self._row(number)}).encode()
            headers = {"content-type": JSON} | ({"idempotency-key": key} if self._keyed else {})
            broken = waited = 0
            while True:
                try:
                    answer = asked(connection, "POST", self._path, body, headers)
                except ConnectionRefusedError:
                    return
                except (OSError, http.client.HTTPException) as error:
                    connection.close()
                    if not self._keyed:
                        self.dropped.append(repr(error))
                        return
                    broken += 1
                    continue
                if answer.status == 409:
                    waited += 1
                    time.sleep(0.05)
                    continue
                break
            self.calls[caller].append(Call(key, answer, broken, waited))
        connection.close()
