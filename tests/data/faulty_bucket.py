"""A small S3 service on this machine that serves one bucket's objects and misbehaves as it is told."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_ERROR = "<?xml version='1.0'?><Error><Code>{code}</Code><Message>as told</Message></Error>"


class FaultyBucket:
    """Objects by key; `faults` is taken one by one by requests for data: a status, `truncate`, `hang`, or nothing."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.faults: list[int | str] = []
        self.requests: Counter[str] = Counter()
        self.hang_s = 0.6
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        bucket = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def do_HEAD(self) -> None:
                self._answer(is_head=True)

            def do_GET(self) -> None:
                self._answer(is_head=False)

            def _fail(self, status: int, *, is_head: bool) -> None:
                codes = {403: "AccessDenied", 404: "NoSuchKey", 412: "PreconditionFailed", 416: "InvalidRange"}
                body = b"" if is_head else _ERROR.format(code=codes.get(status, "InternalError")).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def _answer(self, *, is_head: bool) -> None:
                bucket.requests[self.command] += 1
                data = bucket.objects.get(self.path.split("?")[0].removeprefix("/data/"))
                if data is None:
                    return self._fail(404, is_head=is_head)
                tag = f'"{hashlib.md5(data).hexdigest()}"'
                if self.headers.get("If-Match", tag) != tag:
                    return self._fail(412, is_head=is_head)
                fault = bucket.faults.pop(0) if bucket.faults and not is_head else None
                if isinstance(fault, int):
                    return self._fail(fault, is_head=is_head)
                first, last = 0, len(data) - 1
                if "Range" in self.headers:
                    first, last = (int(part) for part in self.headers["Range"].removeprefix("bytes=").split("-"))
                if first >= len(data):
                    return self._fail(416, is_head=is_head)
                part = data[first : last + 1]
                self.send_response(206 if "Range" in self.headers else 200)
                self.send_header("Content-Length", str(len(data) if is_head else len(part)))
                self.send_header("ETag", tag)
                self.end_headers()
                if is_head:
                    return None
                if fault == "hang":
                    time.sleep(bucket.hang_s)
                if fault == "truncate":
                    self.wfile.write(part[: len(part) // 2])
                    self.close_connection = True
                    return None
                try:
                    self.wfile.write(part)
                except (BrokenPipeError, ConnectionResetError):  # the client has given up waiting
                    self.close_connection = True
                return None

        return Handler
