"""`cambrian evaluate`: any vision-language model of transformers as a row beside this project's runs.

A folder or a repository with a processor and a model that `AutoModelForImageTextToText` knows (LLaVA-NeXT, Qwen-VL,
...) is asked the same items with the same prompts, and its replies and scores have the form of a run's.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cambrian.evaluation.config import EvaluationConfig
from cambrian.evaluation.reply_log import log_folder
from cambrian.evaluation.runner import evaluate_run
from cambrian.interfaces import ArtifactError, RecordError
from cambrian.params import ParamsFiles
from cambrian.runtime import RuntimeConfig

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from cambrian.evaluation.answering import Answerer
    from cambrian.evaluation.reply_log import Prompt


@dataclass(frozen=True, slots=True)
class ForeignModel:
    """A model of transformers, by a folder or by a repository at one commit."""

    source: str
    revision: str | None
    """None for a folder."""
    dtype: str

    def find_log(self, root: Path, name: str, values: dict[str, Any]) -> Path:
        """By the commit, or by the names, sizes and times of the folder's files.

        Raises:
            ArtifactError: a repository without a commit.
        """
        folder = Path(self.source)
        if folder.is_dir():
            facts = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(folder.iterdir())]
        elif self.revision is None:
            raise ArtifactError(f"{self.source} is not a folder, and a repository needs its commit: add --revision")
        else:
            facts = []
        known = {**values, "source": self.source, "revision": self.revision, "dtype": self.dtype, "files": facts}
        return log_folder(root, name, values=known, folders=[])

    def open(self, device: str) -> Answerer:
        """Load the processor and the model.

        Raises:
            ArtifactError: transformers cannot load them.
        """
        from cambrian.models.torchvision_shim import declare_missing_operators

        declare_missing_operators()
        import torch
        from transformers import AutoModelForImageTextToText, AutoProcessor

        try:
            processor = AutoProcessor.from_pretrained(self.source, revision=self.revision or "main")
            model = AutoModelForImageTextToText.from_pretrained(
                self.source, revision=self.revision or "main", dtype=getattr(torch, self.dtype)
            )
        except (OSError, ValueError, KeyError) as error:
            raise ArtifactError(f"transformers cannot load {self.source}: {error}") from error
        return ForeignAnswerer(processor, model.to(device).eval())


class ForeignAnswerer:
    """A processor and a model, asked greedily by the model's own chat template."""

    def __init__(self, processor: Any, model: Any) -> None:
        self._processor = processor
        self._model = model
        processor.tokenizer.padding_side = "left"
        if processor.tokenizer.pad_token is None:
            processor.tokenizer.pad_token = processor.tokenizer.eos_token

    def length(self, prompt: Prompt) -> int:
        """How many tokens the words are; images of one batch may still differ in theirs."""
        return len(self._processor.tokenizer(prompt[0])["input_ids"]) + (prompt[1] is not None)

    def prepare(self, prompts: Sequence[Prompt]) -> Any:
        """What the processor makes of a batch; prompts with and without an image are never mixed.

        Raises:
            RecordError: a picture cannot be decoded.
        """
        texts = [self._write_turn(question, has_image=image is not None) for question, image in prompts]
        images = [_decode(image) for _, image in prompts if image is not None]
        return self._processor(text=texts, images=images or None, padding=True, return_tensors="pt")

    def generate(self, batch: Any, *, max_new_tokens: int) -> list[str]:
        """The greedy continuation of each prompt."""
        import torch

        inputs = batch.to(self._model.device)
        if "pixel_values" in inputs:
            inputs["pixel_values"] = inputs["pixel_values"].to(self._model.dtype)
        with torch.inference_mode():
            found = self._model.generate(
                **inputs,
                do_sample=False,
                num_beams=1,
                max_new_tokens=max_new_tokens,
                pad_token_id=self._processor.tokenizer.pad_token_id,
            )
        new = found[:, inputs["input_ids"].shape[1] :]
        texts: list[str] = self._processor.tokenizer.batch_decode(new, skip_special_tokens=True)
        return [text.strip() for text in texts]

    def _write_turn(self, question: str, *, has_image: bool) -> str:
        content = [*([{"type": "image"}] if has_image else []), {"type": "text", "text": question}]
        text: str = self._processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        return text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `cambrian evaluate`."""
    parser.add_argument("name", metavar="NAME", help="the row's name")
    parser.add_argument("--model", required=True, help="a folder, or a repository of the hub")
    parser.add_argument("--revision", help="the repository's commit")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="bfloat16")


def run(arguments: argparse.Namespace) -> None:
    """Evaluate a model on the benchmarks of the scale that params.yaml names."""
    files = ParamsFiles()
    output = Path("results") / files.scale / "others" / arguments.name
    evaluate_run(
        ForeignModel(arguments.model, arguments.revision, arguments.dtype),
        benchmarks=Path("data") / files.scale / "benchmarks",
        config=files.block("evaluation", EvaluationConfig),
        runtime=files.block("runtime", RuntimeConfig),
        use_images=True,
        replies_path=output / "replies.parquet",
        scores_path=output / "scores.json",
        run=f"other-{arguments.name}",
        scale=files.scale,
    )


def _decode(data: bytes) -> Any:
    from PIL import Image

    try:
        return Image.open(io.BytesIO(data)).convert("RGB")
    except OSError as error:
        raise RecordError("broken-image", f"{len(data)} bytes cannot be decoded: {error}") from error
