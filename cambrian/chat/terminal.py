"""`cambrian chat`: one answer, a conversation in the terminal, or a page that shows where the model looked."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cambrian.interfaces import ArtifactError, RecordError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cambrian.chat.talker import Answer, Talker
    from cambrian.evaluation.attention import LayerShares

_PROMPT = "> "


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `cambrian chat`."""
    parser.add_argument("--model", type=Path, required=True, metavar="FOLDER", help="a run's model folder")
    parser.add_argument(
        "--backbones", type=Path, metavar="FOLDER", help="where its backbones are (default: FOLDER/../../backbones)"
    )
    parser.add_argument("--image", type=Path, action="append", default=[], metavar="FILE", help="may be repeated")
    parser.add_argument("--prompt", metavar="TEXT", help="answer this and end (default: ask for questions)")
    parser.add_argument("--max-new-tokens", type=_parse_count, default=256, metavar="N", help="default: %(default)s")
    parser.add_argument("--device", default="cpu", help="a torch device (default: %(default)s)")
    parser.add_argument("--shares", action="store_true", help="also tell the attention share per encoder")
    parser.add_argument("--serve", action="store_true", help="show a page instead")
    parser.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="of the page (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, metavar="N", help="of the page (default: %(default)s)")


def run(arguments: argparse.Namespace) -> None:
    """Run `cambrian chat`.

    Raises:
        ArtifactError: the model cannot be read, or a picture's file cannot.
        RecordError: a picture or the prompt cannot be used; in a conversation the next question is asked instead.
    """
    if arguments.serve and (arguments.prompt is not None or arguments.image):
        raise ArtifactError("--serve goes with neither --prompt nor --image: both are given on the page")
    images = [_read_file(path) for path in arguments.image]

    from cambrian.chat.talker import read_talker

    talker = read_talker(arguments.model, backbones=arguments.backbones, device=arguments.device)
    if arguments.serve:
        from cambrian.chat.server import serve

        serve(talker, host=arguments.host, port=arguments.port, max_new_tokens=arguments.max_new_tokens)
    elif arguments.prompt is not None:
        answer = talker.answer(images, [], arguments.prompt, max_new_tokens=arguments.max_new_tokens)
        _show(answer, talker, shares=arguments.shares)
    else:
        _converse(talker, images, max_new_tokens=arguments.max_new_tokens, shares=arguments.shares)


def _converse(talker: Talker, images: Sequence[bytes], *, max_new_tokens: int, shares: bool) -> None:
    """Ask for questions until the input ends."""
    from cambrian.chat.dialogue import Exchange

    exchanges: list[Exchange] = []
    sys.stderr.write(f"{talker.name}, images: {len(images)}. An empty line or Ctrl-D ends, /new begins anew.\n")
    while question := _ask():
        if question == "/new":
            exchanges = []
            continue
        try:
            answer = talker.answer(images, exchanges, question, max_new_tokens=max_new_tokens)
        except RecordError as error:
            if error.reason == "undecodable-image":
                raise
            sys.stderr.write(f"cambrian: {error}\n")
            continue
        _show(answer, talker, shares=shares)
        exchanges.append(Exchange(question, answer.text))


def _ask() -> str:
    try:
        return input(_PROMPT if sys.stdin.isatty() else "").strip()
    except EOFError:
        return ""


def _show(answer: Answer, talker: Talker, *, shares: bool) -> None:
    sys.stdout.write(f"{answer.text}\n")
    if not shares:
        return
    if not answer.layers:
        sys.stdout.write("no attention shares: there is no image, or the model has no spatial vision aggregator\n")
    for layer in answer.layers:
        sys.stdout.write(f"{_describe(layer, talker)}\n")


def _describe(layer: LayerShares, talker: Talker) -> str:
    lines = [
        ", ".join(f"{name} {share:.1%}" for name, share in zip(talker.config.encoders, row, strict=True))
        for row in layer.means().tolist()
    ]
    return "\n".join(f"{layer.name}: {line}" for line in lines)


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"--image {path}: {error.strerror}") from error


def _parse_count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a whole number of at least 1")
    return int(text)
