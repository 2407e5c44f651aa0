"""A web server of a few files, that can also behave like a hub and badly."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

REVISION = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Site:
    """What the server has and does; tests change it while it serves."""

    files: dict[str, bytes] = field(default_factory=dict)
    """By path, without the leading slash."""
    repository: str = "someone/pictures"
    break_off: dict[str, int] = field(default_factory=dict)
    """So many bytes of a file, once, then the connection ends."""
    refuse: dict[str, list[tuple[int, dict[str, str]]]] = field(default_factory=dict)
    """Answers that come before the file, in turn."""
    hang: set[str] = field(default_factory=set)
    requests: Counter[str] = field(default_factory=Counter)
    sent: Counter[str] = field(default_factory=Counter)
    """Bytes by path."""
    headers: list[dict[str, str]] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def add_to_hub(self, name: str, data: bytes) -> None:
        self.files[f"datasets/{self.repository}/resolve/{REVISION}/{name}"] = data

    def tree(self) -> list[dict[str, object]]:
        prefix = f"datasets/{self.repository}/resolve/{REVISION}/"
        return [
            {
                "type": "file",
                "path": path.removeprefix(prefix),
                "size": len(data),
                "oid": "0" * 40,
                "lfs": {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130},
            }
            for path, data in self.files.items()
            if path.startswith(prefix)
        ]


@contextmanager
def serve(site: Site) -> Iterator[Site]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            path = self.path.lstrip("/").partition("?")[0]
            site.requests[path] += 1
            site.headers.append(dict(self.headers))
            if path in site.hang:
                site.released.wait(30)
                return
            if site.refuse.get(path):
                status, headers = site.refuse[path].pop(0)
                self.answer(status, b"", headers)
            elif path == f"api/datasets/{site.repository}/tree/{REVISION}":
                self.answer(200, json.dumps(site.tree()).encode(), {"Content-Type": "application/json"})
            elif path not in site.files:
                self.answer(404, b"", {})
            else:
                self.send_file(path, site.files[path])

        def send_file(self, path: str, data: bytes) -> None:
            etag = {"ETag": hashlib.md5(data).hexdigest()}
            start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
            if start >= len(data) > 0:
                self.answer(416, b"", {})
                return
            body = data[start:]
            status = 206 if start else 200
            cut = site.break_off.pop(path, None)
            site.sent[path] += len(body) if cut is None else cut
            if cut is None:
                self.answer(status, body, etag)
                return
            self.answer(status, body[:cut], etag, length=len(body))
            self.close_connection = True

        def answer(self, status: int, body: bytes, headers: dict[str, str], length: int | None = None) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body) if length is None else length))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield site
    finally:
        site.released.set()
        server.shutdown()
        server.server_close()
        thread.join()
