"""Prompts, token ids, labels, and what the official collator makes of them."""

from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cambrian.data.conversation import Encoded, encode_prompt
from cambrian.data.tokenizer import Tokenizer
from cambrian.interfaces import IGNORE_LABEL, IMAGE_PLACEHOLDER, IMAGE_TOKEN_ID, Turn
from cambrian.models.config import GridLayout
from cambrian.models.connector import TokenLayout
from cambrian.models.multimodal import positions_of
from cambrian.models.padding import visible_windows
from cambrian.release.sentencepiece import read_sentencepiece
from cambrian.release.templates import (
    encode_release_conversation,
    find_release_template,
    prepare_turns,
    render,
    render_dialogue,
)
from tests.parity.files import golden_files, read_golden

CONVERSATION_FILES = golden_files("conversations")
CASES = [(path, name) for path in CONVERSATION_FILES for name in sorted(read_golden(path)[0]["templates"])]
CASE_IDS = [f"{path.stem}-{name}" for path, name in CASES]


@dataclass
class Golden:
    config: dict[str, Any]
    """Of the template."""
    tensors: dict[str, Tensor]
    template: str
    tokenizer: Tokenizer
    max_length: int
    side: int
    window_sides: list[int]

    def encode(self, sample: dict[str, Any], num_image_positions: int) -> Encoded:
        turns = [Turn("gpt" if turn["from"] == "gpt" else "human", turn["value"]) for turn in sample["conversation"]]
        template = find_release_template(self.template)
        return encode_release_conversation(turns, template, self.tokenizer, num_image_positions)


@pytest.fixture(scope="module", params=CASES, ids=CASE_IDS)
def golden(request: pytest.FixtureRequest) -> Golden:
    path, name = request.param
    config, tensors = read_golden(path)
    side = isqrt(config["image_token_len"])
    return Golden(
        config["templates"][name],
        tensors,
        name,
        make_tokenizer(path.parent, name),
        config["max_length"],
        side,
        [isqrt(count) // side for count in config["aux_token_len"]],
    )


def make_tokenizer(folder: Path, template: str) -> Tokenizer:
    from tokenizers import Tokenizer as Backend

    if template == "llama_3":
        backend = Backend.from_file(str(folder / "tok_llama3_like.json"))
        return Tokenizer(backend, pad_token="<|reserved_special_token_0|>", end_token="<|eot_id|>")
    added = ["<|im_start|>", "<|im_end|>"] if template == "chatml_direct" else []
    backend = read_sentencepiece(folder / "tok_spm_like.model", added)
    return Tokenizer(backend, pad_token="<unk>", end_token=added[-1] if added else "</s>")


def test_rendered_texts_are_the_official_ones(golden: Golden) -> None:
    template = find_release_template(golden.template)
    assert golden.config["samples"]
    for sample in golden.config["samples"]:
        turns = [Turn("gpt" if turn["from"] == "gpt" else "human", turn["value"]) for turn in sample["conversation"]]
        # the release puts an assistant's header after a Llama 3 conversation, and takes it away for training
        tail = template.assistant if golden.template == "llama_3" else ""
        assert render(prepare_turns(turns), template) + tail == sample["rendered"], sample["name"]
    for prompt in golden.config["inference"]:
        assert render_dialogue([Turn("human", prompt["question"])], template) == prompt["rendered"]


def test_ids_and_labels_are_the_official_ones(golden: Golden) -> None:
    for sample in golden.config["samples"]:
        encoded = golden.encode(sample, num_image_positions=1)
        name = f"{golden.template}.{sample['name']}"
        # texts are cut when they are encoded, conversations with an image later
        length = len(encoded.input_ids) if sample["has_image"] else golden.max_length
        assert encoded.input_ids[:length] == golden.tensors[f"{name}.input_ids"].tolist(), name
        assert encoded.labels[:length] == golden.tensors[f"{name}.labels"].tolist(), name


def test_prompt_ids_are_the_official_ones(golden: Golden) -> None:
    # the other of the two official routines loses a line break (llama_3) or begins twice (vicuna_v1)
    routine = "ids_tokenizer_image_token" + ("_llama3" if golden.template == "llama_3" else "")
    assert golden.config["inference"]
    for index, prompt in enumerate(golden.config["inference"]):
        question = prompt["question"].removeprefix(f"{IMAGE_PLACEHOLDER}\n")
        has_image = question != prompt["question"]
        template = find_release_template(golden.template)
        ids = encode_prompt(question, has_image, template, golden.tokenizer, num_image_positions=1)
        assert ids == golden.tensors[f"{golden.template}.inference_{index}.{routine}"].tolist()
        assert ids.index(IMAGE_TOKEN_ID) == golden.config["image_position"]


def test_what_the_llm_sees_of_a_batch_is_the_official(golden: Golden) -> None:
    """Ids, labels and positions of everything visible; the release also has hidden images for texts, and padding."""
    layout = make_layout(golden.side)
    samples = {sample["name"]: sample for sample in golden.config["samples"]}
    collated = {
        name: golden.tensors[f"{golden.template}.collated.{name}"]
        for name in ("input_ids", "labels", "attention_mask", "position_ids")
    }
    assert len(collated["input_ids"]) == len(golden.config["collated_samples"])
    for row, name in enumerate(golden.config["collated_samples"]):
        sample, seen = samples[name], collated["attention_mask"][row]
        encoded = golden.encode(sample, layout.num_positions)
        ids = torch.tensor(encoded.input_ids[: golden.max_length])
        mask = torch.ones(len(ids), dtype=torch.bool)
        if sample["has_image"]:
            visible = layout.visible(torch.tensor([sample["image_size_wh"], [2, 1]]))
            assert visible is not None
            mask[ids == IMAGE_TOKEN_ID] = visible[0]
        else:
            # the hidden image pushes the end of a long text out
            length = int(seen.sum())
            assert length == min(len(ids), golden.max_length - layout.num_positions)
            ids, mask = ids[:length], mask[:length]
        positions = positions_of(mask[None])[0]
        official_ids = torch.where(
            ids[mask] == IMAGE_TOKEN_ID, IMAGE_TOKEN_ID, collated["input_ids"][row][seen].to(torch.int64)
        )
        assert torch.equal(ids[mask], official_ids), name
        assert encoded.labels[: len(ids)] == _unwiden(collated["labels"][row], seen, mask), name
        assert torch.equal(positions[mask], collated["position_ids"][row][seen].to(torch.int64)), name


def test_windows_are_masked_as_the_official_collator_masks_them(golden: Golden) -> None:
    samples = {sample["name"]: sample for sample in golden.config["samples"]}
    sizes = torch.tensor([samples[name]["image_size_wh"] for name in golden.config["collated_samples"]])
    for encoder, window_side in enumerate(golden.window_sides):
        windows = visible_windows(sizes, queries_per_side=golden.side, window_side=window_side)
        official = golden.tensors[f"{golden.template}.collated.image_aux_mask_{encoder}"]
        assert torch.equal(windows, official.flatten(0, 1))


def _unwiden(labels: Tensor, seen: Tensor, mask: Tensor) -> list[int]:
    """The official labels of what is seen, with what is hidden between left out of the loss."""
    found = torch.full((len(mask),), IGNORE_LABEL)
    found[mask] = labels[seen].to(torch.int64)
    return found.tolist()


def make_layout(side: int) -> TokenLayout:
    config = GridLayout(position_rms=None, output_rms=None, side=side, newline=True, hide_padding=True)
    return TokenLayout(config, num_tokens=side**2, dim=1)
