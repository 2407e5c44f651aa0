"""A hub on this machine: the little of the real one's protocol that fetching a model at a commit needs."""

from __future__ import annotations

import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REVISION = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def serve_hub(folder: Path, repository: str) -> Iterator[str]:
    """Serve a folder as a repository at one commit; yields the address."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = self.path.lstrip("/").partition("?")[0]
            resolve = f"{repository}/resolve/{REVISION}/"
            if path == f"api/models/{repository}/revision/{REVISION}":
                siblings = [{"rfilename": name} for name in files]
                self.answer_json({"id": repository, "modelId": repository, "sha": REVISION, "siblings": siblings})
            elif path == f"api/models/{repository}/tree/{REVISION}":
                self.answer_json(
                    [
                        {"type": "file", "path": name, "size": file.stat().st_size, "oid": "0" * 40}
                        for name, file in files.items()
                    ]
                )
            elif path.startswith(resolve) and path.removeprefix(resolve) in files:
                self.answer(200, files[path.removeprefix(resolve)].read_bytes(), {})
            else:
                code = "RevisionNotFound" if repository in path else "RepoNotFound"
                self.answer(404, b"", {"X-Error-Code": code})

        def answer_json(self, value: object) -> None:
            self.answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

        def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            etag = f'"{hashlib.sha1(body).hexdigest()}"'
            for name, value in {"ETag": etag, "X-Repo-Commit": REVISION, **headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
