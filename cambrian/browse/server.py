"""A page on this machine that shows records, their pictures, and the tokens that training makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi.responses import JSONResponse, Response

from cambrian.interfaces import RecordError
from cambrian.local_page import listen, make_app
from cambrian.local_page import serve as serve_page

if TYPE_CHECKING:
    from fastapi import FastAPI, Request

    from cambrian.browse.records import RecordBrowser, Shown
    from cambrian.browse.tokens import TrainingView

PAGE_SIZE = 50

_PAGE_PATH = Path(__file__).with_name("page.html")
_MAGIC = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif", b"RIFF": "image/webp"}


def serve(records: RecordBrowser, view: TrainingView | None, *, fault: str, name: str, host: str, port: int) -> None:
    """Serve the page until Ctrl-C.

    Raises:
        ArtifactError: the address cannot be bound.
    """
    listener = listen(host, port)
    serve_page(build_app(records, view, fault=fault, name=name, host=host), listener, name=name)


def build_app(records: RecordBrowser, view: TrainingView | None, *, fault: str, name: str, host: str) -> FastAPI:
    """Make the application. Nothing can be changed through it, and no request names a path."""
    app = make_app(_PAGE_PATH, host=host, image_sources="'self'")

    @app.exception_handler(RecordError)
    async def refuse(_: Request, error: RecordError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 404)

    @app.get("/facts")
    def describe() -> dict[str, Any]:
        return {
            "name": name,
            "rows": records.num_rows,
            "sources": records.count("source"),
            "categories": records.count("category"),
            "reasons": records.count("reason"),
            "view": view.name if view is not None else None,
            "fault": fault,
        }

    @app.get("/records")
    def list_records(
        source: str | None = None,
        category: str | None = None,
        reason: str | None = None,
        text: str = "",
        offset: int = 0,
    ) -> dict[str, Any]:
        numbers = records.select(source=source, category=category, reason=reason, text=text)
        chosen = numbers[max(offset, 0) : max(offset, 0) + PAGE_SIZE]
        return {"total": len(numbers), "rows": [_describe_row(records, number) for number in chosen]}

    @app.get("/records/{number}")
    def show_record(number: int) -> dict[str, Any]:
        return _describe_shown(records.show(number), view)

    @app.get("/images/{number}")
    def show_image(number: int) -> Response:
        record = records.show(number).record
        if record is None or record.image is None:
            raise RecordError("missing-image", f"row {number} has no picture")
        data = records.read_image(record.image)
        kind = next((kind for magic, kind in _MAGIC.items() if data.startswith(magic)), "application/octet-stream")
        return Response(data, media_type=kind)

    return app


def _describe_row(records: RecordBrowser, number: int) -> dict[str, Any]:
    row = records.row(number)
    return {"number": number, "id": row["id"], "source": row["source"], "reason": row["reason"]}


def _describe_shown(shown: Shown, view: TrainingView | None) -> dict[str, Any]:
    record = shown.record
    value: dict[str, Any] = {**shown.row, "raw": shown.raw, "turns": [], "image": None, "tokens": [], "token_fault": ""}
    if record is None:
        return value
    value["turns"] = [{"speaker": turn.speaker, "text": turn.text} for turn in record.turns]
    value["image"] = record.image
    if view is not None:
        try:
            value["tokens"] = view.describe(record)
        except RecordError as error:
            value["token_fault"] = f"training leaves it out ({error.reason}): {error}"
    return value
