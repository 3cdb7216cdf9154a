"""HTTP as bytes: what no client library would send, and what comes back."""

from tests.faults.gateway_process import Answer, GatewayProcess

MODEL = "odd_requests"
PATH = f"/v1/models/{MODEL}:predict"


def exchange(served: GatewayProcess, *parts: bytes) -> bytes:
    """Write bytes and read until the gateway hangs up."""
    with served.connect() as connection:
        for part in parts:
            try:
                connection.sendall(part)
            except BrokenPipeError:
                break
        return b"".join(iter(lambda: connection.recv(65536), b""))


def answers(stream: bytes) -> list[Answer]:
    """The HTTP answers in a stream."""
    found = []
    while stream:
        head, _, rest = stream.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines)}
        length = int(headers["content-length"])
        found.append(Answer(int(first.split()[1]), headers, rest[:length]))
        stream = rest[length:]
    return found


def post(body: bytes, *headers: str, path: str = PATH) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "host: gateway", "content-type: application/json"]
    lines += [f"content-length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def chunked(body: bytes, *headers: str, size: int = 7) -> bytes:
    lines = [f"POST {PATH} HTTP/1.1", "host: gateway", "content-type: application/json"]
    lines += ["transfer-encoding: chunked", *headers]
    chunks = [body[first : first + size] for first in range(0, len(body), size)]
    written = [b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in [*chunks, b""]]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + b"".join(written)


def instance(**values: str) -> bytes:
    """A body whose values are written as they are given."""
    row = {"size": "3.5", "weight": "0.25", "colour": '"red"'} | values
    return b'{"instance":{%s}}' % ",".join(f'"{k}":{v}' for k, v in row.items()).encode()


GOOD = instance()
