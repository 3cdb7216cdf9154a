"""uvicorn with an application that reads a body and answers a constant: a limit, not a peer."""

import sys

import uvicorn

HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"20")]


async def application(scope, receive, send):
    """Answer 200."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body", False):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": b'{"probability":0.25}'})


if __name__ == "__main__":
    uvicorn.run(
        application, port=int(sys.argv[1]), log_level="warning", access_log=False, lifespan="off"
    )
