"""A page on this machine that asks the model and draws where it looked; nothing of a visitor is kept."""

from __future__ import annotations

import base64
import binascii
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Request  # noqa: TC002 (FastAPI reads the annotations of routes)
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from pydantic import Field

from cambrian.chat.dialogue import Exchange
from cambrian.interfaces import RecordError
from cambrian.local_page import listen, make_app
from cambrian.local_page import serve as serve_page
from cambrian.models.config import SVAConfig
from cambrian.params import Params

if TYPE_CHECKING:
    from fastapi import FastAPI

    from cambrian.chat.talker import Answer, Talker
    from cambrian.evaluation.attention import LayerShares

MAX_REQUEST_BYTES = 32 << 20
"""Of one question with its pictures, which are a third larger in a request than as files."""

_PAGE_PATH = Path(__file__).with_name("page.html")


class _Exchange(Params):
    """A question of the conversation so far and its answer."""

    question: str
    answer: str


class _Question(Params):
    """What the page asks: pictures and text, never a path."""

    images: Annotated[tuple[str, ...], Field(strict=False)]
    """Base64 of encoded image files."""
    exchanges: Annotated[tuple[_Exchange, ...], Field(strict=False)]
    question: str


class _RequestError(Exception):
    """A request that is refused, with its HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def serve(talker: Talker, *, host: str, port: int, max_new_tokens: int) -> None:
    """Serve the page until Ctrl-C.

    Raises:
        ArtifactError: the address cannot be bound.
    """
    listener = listen(host, port)
    serve_page(build_app(talker, host=host, max_new_tokens=max_new_tokens), listener, name=talker.name)


def build_app(talker: Talker, *, host: str, max_new_tokens: int) -> FastAPI:
    """Make the application: the page, what the page must know of the model, and answers."""
    app = make_app(_PAGE_PATH, host=host, image_sources="blob:")
    one_at_a_time = threading.Lock()

    def ask(question: _Question) -> Answer:
        images = [_decode_base64(text) for text in question.images]
        exchanges = [Exchange(past.question, past.answer) for past in question.exchanges]
        with one_at_a_time:
            return talker.answer(images, exchanges, question.question, max_new_tokens=max_new_tokens)

    @app.get("/model")
    async def describe_model() -> dict[str, Any]:
        return {
            "name": talker.name,
            "encoders": talker.config.encoders,
            "llm": talker.config.llm,
            "has_shares": isinstance(talker.config.connector, SVAConfig),
            "max_request_bytes": MAX_REQUEST_BYTES,
        }

    @app.post("/answers")
    async def answer(request: Request) -> JSONResponse:
        try:
            question = await _read_question(request)
            found = await run_in_threadpool(ask, question)
        except _RequestError as error:
            return JSONResponse({"error": str(error)}, error.status)
        except RecordError as error:
            return JSONResponse({"error": str(error)}, 422)
        return JSONResponse({"text": found.text, "layers": [_describe_layer(layer) for layer in found.layers]})

    return app


async def _read_question(request: Request) -> _Question:
    """Read a question, never holding more than the limit.

    Raises:
        _RequestError: it is no JSON (of another type, a foreign page could send it without asking), too large, or
            has other fields than a question.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise _RequestError(415, "a question is sent as application/json")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_REQUEST_BYTES:
            limit = MAX_REQUEST_BYTES >> 20
            raise _RequestError(413, f"the pictures are larger than {limit} MiB together: scale them down")
    try:
        return _Question.model_validate_json(bytes(body))
    except ValueError as error:
        raise _RequestError(422, f"the request is not a question: {str(error).splitlines()[0]}") from error


def _decode_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _RequestError(422, f"a picture is not base64: {error}") from error


def _describe_layer(layer: LayerShares) -> dict[str, Any]:
    """What the page draws: shares to four decimals, null in cells that show nothing of the picture."""
    grids = [
        [[[None if share != share else round(share, 4) for share in row] for row in grid] for grid in image]
        for image in layer.shares.tolist()
    ]
    return {"name": layer.name, "shares": grids, "means": layer.means().tolist()}
