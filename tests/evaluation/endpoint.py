"""A language model's endpoint on this machine, in the form of OpenAI's."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass
class Endpoint:
    """What it was asked, and what it will say."""

    address: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    """Of the next answers; 200 when they have run out."""
    message: Callable[[str], str] | None = lambda reply: "Correct." if "A" in reply else "incorrect"
    """Its message on a reply."""


@contextmanager
def serve_judge() -> Iterator[Endpoint]:
    """Serve one that finds every reply with an A in it correct."""
    endpoint = Endpoint()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            endpoint.asked.append({"path": self.path, "key": self.headers["Authorization"], **body})
            reply = body["messages"][1]["content"].rsplit("Reply: ", 1)[1]
            message = endpoint.message(reply) if endpoint.message is not None else None
            data = json.dumps({"choices": [{"message": {"content": message}}]}).encode()
            self.send_response(endpoint.statuses.pop(0) if endpoint.statuses else 200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    endpoint.address = f"http://127.0.0.1:{server.server_port}/v1/"
    try:
        yield endpoint
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
