"""Evaluation in batches of 16, against one item at a time as the release evaluates.

    python -m benchmarks.evaluate

All forms ask one model the same questions about the same pictures. The release's form decodes a picture, prepares it
and lets transformers' `generate` answer, then takes the next item. Ours is the runner of `cambrian.evaluation`: prompts
sorted by length, batches of 16, and of 1 to tell what batching gains from what the loop does. The model is a row of
params.yaml at the scale's sizes with weights as they are drawn (a trained one costs as much). The forms take turns, a
round of items each, in one process on one core; times are the process's own (seconds of processor, not of the clock),
so that a neighbour on the machine counts little.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from benchmarks.machine import describe_machine
from cambrian.artifacts import write_folder
from cambrian.backbones.config import BackboneConfig, TrainedEncoder, TrainedLanguageModel
from cambrian.backbones.language_model import build_language_model
from cambrian.backbones.tokenizer import token_ids, write_tokenizer
from cambrian.backbones.vision_encoder import build_encoder
from cambrian.data.collate import collate
from cambrian.data.conversation import Encoded, encode_prompt
from cambrian.data.images import preprocess
from cambrian.data.tokenizer import read_tokenizer
from cambrian.evaluation.answering import OwnAnswerer
from cambrian.evaluation.asking import answer
from cambrian.evaluation.config import EvaluationConfig
from cambrian.interfaces import IGNORE_LABEL, ParamsError
from cambrian.models.config import ModelConfig
from cambrian.models.encoders import write_encoder
from cambrian.models.generation import generate_with_options
from cambrian.models.tensor_files import unique_tensors, write_tensors
from cambrian.models.weights import build_model
from cambrian.params import ParamsFiles
from cambrian.release.templates import find_template
from cambrian.training.config import AdapterRow, ConnectorMeaning, LLMMeaning, RunRow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cambrian.data.conversation import Template
    from cambrian.data.tokenizer import Tokenizer
    from cambrian.evaluation.reply_log import Prompt
    from cambrian.models.multimodal import MultimodalModel

GOAL = 4.0
"""How many times more items a second batches are to answer."""
BATCH_SIZE = 16
WORDS = tuple(f"word{number}" for number in range(400))
PICTURE_SIDE = 48


@dataclass(frozen=True)
class Measured:
    """What the rounds took, in seconds of processor."""

    one_by_one_s: list[float]
    alone_s: list[float]
    """The runner with batches of one: what its own loop saves against transformers' `generate`."""
    batched_s: list[float]
    num_items: int
    """In one round."""
    num_different: int
    """Prompts to which not all forms reply the same, over all rounds."""

    @property
    def ratio(self) -> float:
        """How many times more items a second batches answer: the median over the rounds."""
        return statistics.median(slow / fast for slow, fast in zip(self.one_by_one_s, self.batched_s, strict=True))


def draw_model(run: str, folder: Path) -> ModelConfig:
    """Write the backbones of a row of `runs` with weights as they are drawn, and return what the model is made of.

    Raises:
        ParamsError: the scale takes the run's backbones from elsewhere.
    """
    files = ParamsFiles()
    row = files.row("runs", run, RunRow)
    adapter = files.row("adapters", row.adapter, AdapterRow)
    for name in {*adapter.encoder_names, adapter.llm}:
        config = files.meaning("backbones", name, BackboneConfig).root
        with write_folder(folder / name) as output:
            match config:
                case TrainedEncoder():
                    write_encoder(
                        output,
                        build_encoder(config, seed=0),
                        architecture=config.architecture,
                        model_args=config.model_args,
                        spec=config.spec,
                    )
                case TrainedLanguageModel():
                    llm = build_language_model(config.shape, token_ids(WORDS), seed=0)
                    llm.config.save_pretrained(output)
                    write_tensors(output / "model.safetensors", unique_tensors(llm))
                    write_tokenizer(output, WORDS, max_num_tokens=config.shape.max_num_tokens)
                case _:
                    raise ParamsError(f"backbones.{name} is {config.kind}: choose a scale whose backbones are trained")
    return ModelConfig(
        encoders=adapter.encoder_names,
        connector=files.meaning("connectors", adapter.connector, ConnectorMeaning).root,
        llm=adapter.llm,
        template=files.meaning("llms", adapter.llm, LLMMeaning).template,
    )


def draw_prompts(num_items: int, generator: np.random.Generator) -> list[Prompt]:
    """Questions of 3 to 10 words, each about a picture of its own."""
    prompts: list[Prompt] = []
    for _ in range(num_items):
        pixels = generator.integers(256, size=(PICTURE_SIDE, PICTURE_SIDE, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        words = generator.choice(WORDS, size=generator.integers(3, 11))
        prompts.append((" ".join(words), file.getvalue()))
    return prompts


def answer_one_by_one(
    prompts: Sequence[Prompt], model: MultimodalModel, tokenizer: Tokenizer, template: Template, max_new_tokens: int
) -> list[str]:
    """Answer as the release does: decode, prepare, generate, next."""
    end_id = tokenizer.encode(template.assistant_end)[-1]
    replies = []
    for question, picture in prompts:
        assert picture is not None
        ids = encode_prompt(question, True, template, tokenizer, model.num_image_positions)
        batch = collate(
            [Encoded(ids, [IGNORE_LABEL] * len(ids))],
            [preprocess(picture, model.image_specs)],
            [(PICTURE_SIDE, PICTURE_SIDE)],
            tokenizer.pad_id,
        )
        (found,) = generate_with_options(
            model,
            batch,
            do_sample=False,
            num_beams=1,
            max_new_tokens=max_new_tokens,
            eos_token_id=end_id,
            pad_token_id=tokenizer.pad_id,
        ).tolist()
        replies.append(tokenizer.decode(found[: found.index(end_id)] if end_id in found else found).strip())
    return replies


def measure(run: str, *, num_items: int, rounds: int, folder: Path) -> Measured:
    """Let both forms take turns; the first round of each, which also warms up, is left out."""
    config = draw_model(run, folder)
    evaluation = ParamsFiles().block("evaluation", EvaluationConfig)
    model = build_model(config, backbones=folder, seed=0).eval()
    tokenizer, template = read_tokenizer(folder / config.llm), find_template(config.template)
    answerer = OwnAnswerer(model, tokenizer, template, "cpu")
    max_new_tokens = max(prompt.max_new_tokens for prompt in evaluation.prompts.values())
    generator = np.random.default_rng(0)
    taken: list[list[float]] = []
    num_different = 0
    for number in range(rounds + 1):
        prompts = draw_prompts(num_items, generator)
        marks = [time.process_time()]
        one_by_one = answer_one_by_one(prompts, model, tokenizer, template, max_new_tokens)
        marks.append(time.process_time())
        answered = []
        for size, what in ((1, "alone"), (BATCH_SIZE, "in batches")):
            answered.append(answer(answerer, prompts, batch_size=size, max_new_tokens=max_new_tokens, what=what))
            marks.append(time.process_time())
        num_different += sum(
            {one[prompt] for one in answered} != {reply} for prompt, reply in zip(prompts, one_by_one, strict=True)
        )
        if number:
            taken.append([after - before for before, after in itertools.pairwise(marks)])
    one_by_one_s, alone_s, batched_s = (list(seconds) for seconds in zip(*taken, strict=True))
    return Measured(one_by_one_s, alone_s, batched_s, num_items, num_different)


def main() -> None:
    """Measure, and print one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", default="cambrian-8b", help="a row of params.yaml (default: %(default)s)")
    parser.add_argument("--items", type=int, default=160, help="of one round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, help="also write the result here, indented")
    args = parser.parse_args()
    torch.set_num_threads(1)
    machine = describe_machine("cpu")
    with tempfile.TemporaryDirectory() as folder:
        found = measure(args.run, num_items=args.items, rounds=args.rounds, folder=Path(folder))
    report = {
        "name": "evaluate",
        "ratio": round(found.ratio, 2),
        "goal": GOAL,
        "meets": found.ratio >= GOAL and found.num_different == 0,
        "items_per_second": {
            "one_by_one": round(found.num_items / statistics.median(found.one_by_one_s), 1),
            "batches_of_1": round(found.num_items / statistics.median(found.alone_s), 1),
            f"batches_of_{BATCH_SIZE}": round(found.num_items / statistics.median(found.batched_s), 1),
        },
        "replies_that_differ": found.num_different,
        **asdict(found),
        "run": args.run,
        "machine": machine,
        "command": " ".join(["python -m benchmarks.evaluate", *sys.argv[1:]]),
    }
    if args.output is not None:
        args.output.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
