"""A small encyclopedia and a scripted language model on this machine, for the data engine to work with.

    python -m tests.data.engine.site --port 8750

serves both until Ctrl-C; the committed recording (`recordings/mini`) was made from it.
"""

from __future__ import annotations

import argparse
import io
import json
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from PIL import Image, ImageDraw

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TOPICS = {
    "optics": ["Lens", "Prism/Spectrum"],
    "waves": ["Pendulum"],
    "cells": ["Leaf cell", "Yeast"],
    "birds": ["Hidden nest"],
}
ROBOTS = "User-agent: *\nDisallow: /wiki/Hidden_nest\nCrawl-delay: 0\n"
FILLER = (
    "The figure of this section shows how the parts lie beside each other and which of them carries the light or the "
    "load, and it is drawn so that the names of the parts can be read in order from the left side to the right side, "
    "with the largest part in the middle and the smaller parts around it, as in every plate of this small book."
)


def paragraph(words: str) -> str:
    return f"<p>{words} {FILLER}</p>"


def figure(name: str, caption: str) -> str:
    return f'<figure><a href="/x"><img src="/thumb/{name}/120px-{name}"></a><figcaption>{caption}</figcaption></figure>'


PAGES = {
    "Lens": "<h1>Lens</h1>"
    + paragraph("A lens bends light towards a focus.")
    + figure("lens.png", "Light behind a convex lens meets in the focus")
    + "<h2>History of lenses</h2>"
    + paragraph("Old lenses were polished stones.")
    + figure("old.png", "Old lenses of stone")
    + "<h3>Reading stones</h3>"
    + paragraph("Reading stones lay on a page.")
    + figure("stone.png", "A reading stone on a page")
    + "<h2>Use</h2><p>Too short a text.</p>"
    + figure("lens.png", "A lens in use"),
    "Prism_or_Spectrum": "<h1>Prism</h1>"
    + paragraph("A prism parts white light into colours.")
    + figure("prism.svg", "White light leaves the prism in colours")
    + "<h2>Order of colours</h2>"
    + paragraph("Red light is bent least and violet light most.")
    + figure("colours.gif", "Bands of colours, red first")
    + figure("cat.png", "A sleeping cat"),
    "Pendulum": "<h1>Pendulum</h1>"
    + paragraph("A pendulum swings with a period that follows from its length.")
    + figure("pendulum.png", "A pendulum at both ends of its swing")
    + figure("tiny.png", "A small pendulum")
    + figure("gone.png", "A pendulum that is gone")
    + figure("broken.png", "A broken pendulum"),
    "Leaf_cell": "<h1>Leaf cell</h1>"
    + paragraph("A leaf cell has a wall and green bodies that catch light.")
    + figure("cell.png", "Green bodies within a leaf cell")
    + "<h2>Wall</h2>"
    + paragraph("The wall of a leaf cell is stiff."),
    "Yeast": "<h1>Yeast</h1>"
    + paragraph("Yeast divides by budding.")
    + figure("yeast.png", "Yeast cells while budding"),
}


@cache
def picture(name: str) -> bytes:
    """A drawing that is different for every name."""
    if name.endswith(".svg"):
        return (
            b'<svg xmlns="http://www.w3.org/2000/svg" width="80" height="60">'
            b'<path d="M10 50 L40 10 L70 50 Z" fill="#8888ff"/></svg>'
        )
    side = 8 if name == "tiny.png" else 72
    image = Image.new("RGB", (side, side - side // 6), (240, 240, 230))
    draw = ImageDraw.Draw(image)
    for index, letter in enumerate(name.encode()):
        draw.line((index * 7 % side, 0, letter % side, side), fill=(letter, index * 20 % 256, 90), width=3)
    buffer = io.BytesIO()
    image.save(buffer, "GIF" if name.endswith(".gif") else "PNG")
    return buffer.getvalue()[:60] if name == "broken.png" else buffer.getvalue()


@dataclass
class World:
    """What was asked of the servers, and how they behave; tests change it while they serve."""

    asked: list[str] = field(default_factory=list)
    """Paths of pages and pictures, and `topics FIELD` or `question CAPTION` of the model."""
    times: list[float] = field(default_factory=list)
    agents: set[str] = field(default_factory=set)
    keys: set[str] = field(default_factory=set)
    busy: int = 0
    """So many answers of the model are 429."""
    silent: set[str] = field(default_factory=set)
    """Captions for which the model only ever talks."""
    on_request: Callable[[str], None] = lambda _: None
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def counts(self) -> Counter[str]:
        return Counter(self.asked)

    def note(self, what: str) -> None:
        with self.lock:
            self.asked.append(what)
            self.times.append(time.monotonic())
        self.on_request(what)

    def answer(self, body: dict[str, Any]) -> str:
        """What the model says."""
        messages = body["messages"]
        if body["model"] == "planner":
            subfields = messages[1]["content"].partition(": ")[2].split(", ")
            return "```json\n" + json.dumps({"plan": {name: TOPICS[name] for name in subfields}}) + "\n```"
        given = json.loads(messages[1]["content"])
        if given["caption"] in self.silent or (given["section"] == "Yeast" and len(messages) == 2):
            return "What a nice picture! I could say much about it."
        return json.dumps(
            {"question": f"what does this picture of {given['section'].lower()} show ?", "answer": given["caption"]}
        )


@contextmanager
def serve(world: World, *, port: int = 0) -> Iterator[World]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def send(self, status: int, body: bytes, **headers: str) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            world.note(self.path)
            world.agents.add(str(self.headers.get("User-Agent")))
            if parts.path == "/robots.txt":
                self.send(200, ROBOTS.encode())
            elif parts.path == "/api.php":
                wanted = parse_qs(parts.query)["srsearch"][0]
                titles = [title for title in [*PAGES, "Hidden_nest"] if title.replace("_", " ") == wanted]
                hits = [{"title": title.replace("_", " ")} for title in titles]
                self.send(200, json.dumps({"query": {"search": hits}}).encode())
            elif parts.path == "/wiki/Lens":
                self.send(301, b"", Location="/wiki/Lens_(optics)")
            elif parts.path == "/wiki/Lens_(optics)":
                self.send(200, PAGES["Lens"].encode(), Content_Type="text/html")
            elif parts.path.removeprefix("/wiki/") in PAGES:
                self.send(200, PAGES[parts.path.removeprefix("/wiki/")].encode(), Content_Type="text/html")
            elif parts.path == "/gone.png" or "/" in parts.path[1:]:
                self.send(404, b"")
            else:
                self.send(200, picture(parts.path[1:]))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            user = body["messages"][1]["content"]
            is_plan = body["model"] == "planner"
            world.note(f"topics {user.partition(':')[0]}" if is_plan else f"question {json.loads(user)['caption']}")
            world.keys.add(str(self.headers.get("Authorization")))
            if world.busy:
                world.busy -= 1
                self.send(429, b"", Retry_After="0")
                return
            message = {"choices": [{"message": {"role": "assistant", "content": world.answer(body)}}]}
            self.send(200, json.dumps(message).encode(), Content_Type="application/json")

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    world.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield world
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    with serve(World(), port=parser.parse_args().port):
        threading.Event().wait()


if __name__ == "__main__":
    main()
