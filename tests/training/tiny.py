"""A tiny world for training: one encoder, one LLM, a pool of coloured squares, a mix, and params for the stages."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from ruamel.yaml import YAML

from cambrian.artifacts import write_folder, write_json
from cambrian.data.records import write_records
from cambrian.data.shards import ShardWriter
from cambrian.interfaces import Record, Turn
from cambrian.models.config import ModelConfig
from cambrian.models.encoders import EncoderSpec, FeaturesConfig, ImageConfig, write_encoder
from cambrian.models.tensor_files import unique_tensors, write_tensors
from cambrian.models.torchvision_shim import declare_missing_operators
from cambrian.params import parse_block
from cambrian.training.config import ConnectorMeaning, TrainingConfig
from tests.pipeline.imports import ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
WORDS = ("what", "colour", "is", "it", "which", "answer", *COLOURS)
TOKENS = ("<pad>", "<unk>", "<user>", "<assistant>", "<end>", *WORDS)

CONNECTOR: dict[str, Any] = {
    "kind": "mlp", "side": 3, "delivery": "unshuffle", "hidden_ratio": 1.0, "position_rms": 0.25,
    "output_rms": 1.0, "newline": False, "hide_padding": True,
}  # fmt: skip
MODEL = ModelConfig(
    encoders=("eye",),
    connector=parse_block(ConnectorMeaning, CONNECTOR, where="connector").root,
    llm="tongue",
    template="turns",
)
RECIPE: dict[str, Any] = {
    "epochs": 2,
    "global_batch_size": 4,
    "micro_batch_size": 4,
    "max_length": 64,
    "schedule": "cosine",
    "warmup_ratio": 0.1,
    "optimizer": {
        "kind": "muon-adamw",
        "momentum": 0.95,
        "matrix_scale": "original",
        "adamw_ratio": 0.5,
        "beta1": 0.9,
        "beta2": 0.95,
        "epsilon": 1e-8,
        "weight_decay": 0.0,
        "max_gradient_norm": 1.0,
    },
    "learning_rates": {"connector": 0.005, "aggregators": 0.005, "llm": 0.005, "encoders": 0.001},
    "rates_for_batch_size": 4,
    "max_unusable_share": 0.2,
    "image_cache_mib": 1,
    "feature_cache_mib": 1,
    "checkpoints": {"folder": "checkpoints", "every_steps": 2, "num_kept": 2},
}
LOADING: dict[str, Any] = {"folder": "loading", "shards": {"kind": "folder"}, "num_workers": 0, "num_steps_ahead": 0}
LOCAL: dict[str, Any] = {
    "launch": ["python", "-m"],
    "engine": {"kind": "local", "recompute_activations": False},
    "watch": {"every_steps": 2, "peak_tflops": None, "board": {"kind": "none"}},
    "loading": LOADING,
}
TRAINING = parse_block(TrainingConfig, LOCAL, where="training")


def write_tokenizer(folder: Path, tokens: Sequence[str] = TOKENS) -> None:
    """Write a word-level tokenizer as the LLM's folder holds it."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit

    backend = Tokenizer(WordLevel({token: index for index, token in enumerate(tokens)}, unk_token="<unk>"))
    backend.pre_tokenizer = WhitespaceSplit()
    backend.add_special_tokens(["<pad>", "<user>", "<assistant>", "<end>"])
    folder.mkdir(parents=True, exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", {"pad_token": "<pad>", "eos_token": {"content": "<end>"}})


def write_backbones(folder: Path, *, width: int = 16, num_layers: int = 2) -> None:
    """Write encoders `eye`, `lens` and `deep`, which has two maps, and an LLM `tongue`, with seeded random weights."""
    declare_missing_operators()
    import timm

    for index, (name, layers) in enumerate((("eye", (-1,)), ("lens", (-1,)), ("deep", (0, -1)))):
        torch.manual_seed(index)
        arguments = {
            "img_size": 12,
            "patch_size": 4,
            "embed_dim": width,
            "depth": num_layers,
            "num_heads": 2,
            "num_classes": 0,
        }
        image = ImageConfig(side=12, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), pad_colour=(127, 127, 127))
        spec = EncoderSpec(image=image, features=FeaturesConfig(layers=layers, norm=True))
        encoder = timm.create_model("vit_tiny_patch16_224", **arguments)
        with write_folder(folder / name) as partial:
            write_encoder(partial, encoder, architecture="vit_tiny_patch16_224", model_args=arguments, spec=spec)
    with write_folder(folder / "tongue") as partial:
        write_language_model(partial, len(TOKENS), num_positions=64, width=width, num_layers=num_layers)
        write_tokenizer(partial)


def write_language_model(
    folder: Path, vocabulary_size: int, *, num_positions: int, width: int = 16, num_layers: int = 2, tied: bool = False
) -> None:
    """Write a Llama with seeded random weights, without a tokenizer; if tied, its embedding is its head."""
    from transformers.models.llama import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocabulary_size,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=num_layers,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=num_positions,
        tie_word_embeddings=tied,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=4,
    )
    torch.manual_seed(7)
    write_json(folder / "config.json", config.to_dict())
    write_tensors(folder / "model.safetensors", unique_tensors(LlamaForCausalLM(config)))


def make_records(num_records: int) -> list[Record]:
    """Questions about one coloured picture each; every fourth record has no picture."""
    records = []
    for index in range(num_records):
        colour = list(COLOURS)[index % 3]
        tag, image = ("", None) if index % 4 == 3 else ("<image>\n", f"{index}.png")
        turns = (
            Turn("human", f"{tag}what colour is it"), Turn("gpt", colour),
            Turn("human", "which"), Turn("gpt", f"it is {colour}"),
        )  # fmt: skip
        records.append(Record(id=f"r{index}", source="squares", turns=turns, image=image))
    return records


def encode_png(colour: tuple[int, int, int], width: int = 10, height: int = 8) -> bytes:
    """A picture of one colour."""
    file = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), colour, np.uint8)).save(file, "PNG")
    return file.getvalue()


def write_data(folder: Path, records: Sequence[Record], *, broken: Sequence[str] = ()) -> None:
    """Write `pool` with every record's picture (cut short for the broken ids) and the mix `mix`."""
    with write_folder(folder / "pool") as partial, ShardWriter(partial, max_bytes=1 << 20) as shards:
        for index, record in enumerate(records):
            if record.image is not None:
                data = encode_png(COLOURS[list(COLOURS)[index % 3]])
                shards.add(record.image, data[:40] if record.id in broken else data)
    with write_folder(folder / "mix") as partial:
        write_records(partial / "records.parquet", records, {"squares": "General"})


def write_params(folder: Path, *, training: dict[str, Any] = LOCAL, **recipe: Any) -> None:
    """Write params.yaml and a scale with one adapter, `squares`, and one run of it, `squares`."""
    vision = {"encoders": ["eye", "none"], "llm": "tongue"}
    run = {
        **vision, "adapter": "squares", "mix": "mix", "recipe": "tune", "train_encoders": False, "use_images": True,
        "seed": 0,
    }  # fmt: skip
    params = {
        "scale": "tiny",
        "seed": 0,
        "adapters": {"squares": {**vision, "connector": "mlp", "mix": "mix", "recipe": "tune"}},
        "runs": {"squares": run},
    }
    meanings = {
        "runtime": {"device": "cpu", "threads": 1},
        "training": training,
        "llms": {"tongue": {"template": "turns"}},
        "connectors": {"mlp": CONNECTOR},
        "recipes": {"tune": {**RECIPE, **recipe}},
    }
    (folder / "scales").mkdir(parents=True, exist_ok=True)
    for path, value in (("params.yaml", params), ("scales/tiny.yaml", meanings)):
        with (folder / path).open("w") as file:
            YAML(typ="safe").dump(value, file)


def stage_command(stage: str) -> list[str]:
    """The command line of a stage in a folder that the functions above have filled."""
    arguments = {
        "align": "--adapter squares --output adapter --metrics align.json",
        "finetune": "--run squares --adapter adapter --output run --metrics finetune.json --curve loss.csv",
    }[stage]
    common = "--backbones backbones --data mix --pool pool"
    return [sys.executable, "-m", f"stages.{stage}", *common.split(), *arguments.split()]


def stage_environment() -> dict[str, str]:
    """The environment in which a stage of this checkout runs anywhere."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def run_stage_in(folder: Path, stage: str) -> subprocess.CompletedProcess[str]:
    """Run a stage in its own process."""
    return subprocess.run(
        stage_command(stage), cwd=folder, env=stage_environment(), capture_output=True, text=True, timeout=300
    )
