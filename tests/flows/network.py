"""Networks that break, on purpose: a line that can be cut, and an HTTP proxy that answers wrongly."""

from __future__ import annotations

import socket
import threading
import time
import urllib.error
import urllib.request
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


class Line:
    """A TCP line to a server, which can be cut (connections break, new ones are refused) and mended."""

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        assert parts.hostname is not None
        assert parts.port is not None
        self._target = (parts.hostname, parts.port)
        self._open: list[socket.socket] = []
        self._listener: socket.socket | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.address = f"http://127.0.0.1:{self._port}"
        self.mend()

    def cut(self) -> None:
        """Break everything that goes over it."""
        assert self._listener is not None
        listener, self._listener = self._listener, None
        for open_socket in [listener, *self._open]:
            with suppress(OSError):
                open_socket.shutdown(socket.SHUT_RDWR)
            open_socket.close()
        self._open.clear()

    def mend(self) -> None:
        """Let things pass, again or still."""
        if self._listener is not None:
            return
        self._listener = socket.create_server(("127.0.0.1", self._port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
                far = socket.create_connection(self._target)
            except OSError:
                return
            self._open += [near, far]
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=_pass_on, args=(source, sink), daemon=True).start()


def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


class FaultyProxy:
    """An HTTP proxy before a server; a number of requests with a method and a part of a path get a wrong answer."""

    def __init__(self, server: str, *, slow_s: float = 1.5) -> None:
        self.always: list[tuple[str, str, str]] = []
        """The same, for every such request."""
        self.faults: list[tuple[str, str, str]] = []
        """Fault (`500`, `slow`, `half`), method and part of the path, each for one request."""
        self.caused = 0
        faulty = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                body = self._read_body()
                fault = faulty.take(self.command, self.path)
                if fault == "slow":
                    time.sleep(slow_s)
                if fault == "500":
                    self._send(500, {}, b"<Error><Code>InternalError</Code></Error>")
                    return
                if fault == "half" and body:  # of the request: the server never hears of it
                    self.connection.shutdown(socket.SHUT_RDWR)
                    self.close_connection = True
                    return
                mine = ("connection", "transfer-encoding", "content-length", "expect")
                # urllib would call it a form
                headers = {"Content-Type": "application/octet-stream"}
                headers |= {name: value for name, value in self.headers.items() if name.lower() not in mine}
                request = urllib.request.Request(
                    f"{server}{self.path}", data=body or None, headers=headers, method=self.command
                )
                try:
                    with urllib.request.urlopen(request) as answer:
                        status, got, content = answer.status, dict(answer.headers), answer.read()
                except urllib.error.HTTPError as error:
                    status, got, content = error.code, dict(error.headers), error.read()
                self._send(status, got, content, is_half=fault == "half")

            def _read_body(self) -> bytes:
                if self.headers.get("Transfer-Encoding") != "chunked":
                    return self.rfile.read(int(self.headers.get("Content-Length") or 0))
                body = b""
                while size := int(self.rfile.readline().partition(b";")[0], 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return body

            do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _answer  # noqa: N815

            def _send(self, status: int, headers: dict[str, str], content: bytes, *, is_half: bool = False) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    if name.lower() not in ("content-length", "connection", "transfer-encoding", "date", "server"):
                        self.send_header(name, value)
                length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(content))
                self.send_header("Content-Length", length)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content[: len(content) // 2] if is_half else content)
                if is_half:
                    self.wfile.flush()
                    self.connection.shutdown(socket.SHUT_RDWR)
                    self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def take(self, method: str, path: str) -> str | None:
        """Take the fault that this request is to have."""
        for entry in self.faults:
            if entry[1] == method and entry[2] in path:
                self.faults.remove(entry)
                self.caused += 1
                return entry[0]
        return next((fault for fault, wanted, part in self.always if wanted == method and part in path), None)

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()
