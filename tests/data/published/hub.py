"""A server that answers as the hub does for data sets of one commit each, from folders."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def serve_hub(folder: Path) -> Iterator[str]:
    """Serve `folder/OWNER/NAME` as data sets; yield the address."""

    class Handler(_HubHandler):
        root = folder

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _HubHandler(BaseHTTPRequestHandler):
    root: Path
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        match parts:
            case ["api", "datasets", owner, name, "revision", revision, *_] if self._has(owner, name, revision):
                siblings = [{"rfilename": file} for file in self._files(owner, name)]
                self._send_json({"id": f"{owner}/{name}", "sha": COMMIT, "siblings": siblings, "private": False})
            case ["api", "datasets", owner, name, "tree", revision, *rest] if self._has(owner, name, revision):
                self._send_json(self._tree(owner, name, "/".join(rest)))
            case ["datasets", owner, name, "resolve", revision, *rest] if self._has(owner, name, revision):
                self._send_file(self.root / owner / name / "/".join(rest))
            case _:
                self._send(404, b'{"error": "Repository not found"}', {"X-Error-Code": "RepoNotFound"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        match parts:
            case ["api", "datasets", owner, name, "paths-info", revision] if self._has(owner, name, revision):
                asked = body["paths"] if isinstance(body["paths"], list) else [body["paths"]]
                folder = self.root / owner / name
                self._send_json([self._entry(folder, folder / path) for path in asked if (folder / path).exists()])
            case _:
                self._send(404, b"{}", {})

    def _has(self, owner: str, name: str, revision: str) -> bool:
        return revision == COMMIT and (self.root / owner / name).is_dir()

    def _files(self, owner: str, name: str) -> list[str]:
        folder = self.root / owner / name
        return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())

    def _tree(self, owner: str, name: str, below: str) -> list[dict[str, Any]]:
        folder = self.root / owner / name
        find = (folder / below).rglob if "recursive=true" in self.path.lower() else (folder / below).glob
        paths = sorted(find("*"))
        return [self._entry(folder, path) for path in paths]

    @staticmethod
    def _entry(folder: Path, path: Path) -> dict[str, Any]:
        name = path.relative_to(folder).as_posix()
        if path.is_dir():
            return {"type": "directory", "path": name, "oid": sha1(name.encode()).hexdigest(), "size": 0}
        return {"type": "file", "path": name, "oid": sha1(path.read_bytes()).hexdigest(), "size": path.stat().st_size}

    def _send_json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send_file(self, path: Path) -> None:
        if not path.is_file():
            self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        data = path.read_bytes()
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{sha1(data).hexdigest()}"', "Accept-Ranges": "bytes"}
        wanted = self.headers.get("Range")
        if wanted:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, end = int(first), min(int(last) if last else len(data) - 1, len(data) - 1)
            headers["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
            self._send(206, data[start : end + 1], headers)
        else:
            self._send(200, data, headers)

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
