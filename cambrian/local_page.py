"""A page served from this machine: one file that loads nothing from elsewhere, under this machine's names alone."""

from __future__ import annotations

import ipaddress
import logging
import socket
from typing import TYPE_CHECKING

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse
from starlette.middleware.trustedhost import TrustedHostMiddleware

from cambrian.interfaces import ArtifactError

if TYPE_CHECKING:
    from pathlib import Path

    from starlette.middleware.base import RequestResponseEndpoint
    from starlette.responses import Response

_log = logging.getLogger("cambrian")


def make_app(page: Path, *, host: str, image_sources: str) -> FastAPI:
    """Make an application that answers `/` with the page, and its responses with headers that keep it to itself.

    Requests by another name than the host's are refused, so that no site can reach the page through a name of its own
    that resolves to this machine. `image_sources` is what the page may draw, as a Content-Security-Policy says it.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    names = ["127.0.0.1", "localhost", host]
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["*"] if _is_everywhere(host) else names)
    text = page.read_text(encoding="utf-8")
    headers = {
        "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
        f"img-src {image_sources}; connect-src 'self'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }

    @app.middleware("http")
    async def add_headers(request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        response.headers.update(headers)
        return response

    @app.get("/")
    async def show_page() -> HTMLResponse:
        return HTMLResponse(text)

    return app


def listen(host: str, port: int) -> socket.socket:
    """Bind the address; port 0 takes a free one.

    Raises:
        ArtifactError: the address cannot be bound.
    """
    try:
        return socket.create_server((host, port))
    except (OSError, OverflowError) as error:
        raise ArtifactError(f"{host}:{port} cannot be served ({error}): choose another --port or --host") from error


def serve(app: FastAPI, listener: socket.socket, *, name: str) -> None:
    """Say where the page is, and serve it until Ctrl-C."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    host, port = listener.getsockname()[:2]
    _log.info("%s at http://%s:%d (Ctrl-C ends)", name, host, port)
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])


def _is_everywhere(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False
