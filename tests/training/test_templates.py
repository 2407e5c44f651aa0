"""A tiny Llama trains, is asked and talks under every conversation template of the release."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from cambrian.artifacts import write_folder
from cambrian.chat.dialogue import Exchange, encode_dialogue
from cambrian.data.collate import collate
from cambrian.data.conversation import encode_prompt
from cambrian.data.images import preprocess
from cambrian.data.records import write_records
from cambrian.data.tokenizer import Tokenizer, read_tokenizer
from cambrian.evaluation.answering import open_own_model
from cambrian.interfaces import IGNORE_LABEL, Record, Turn
from cambrian.models.weights import build_model
from cambrian.params import parse_block
from cambrian.release.sentencepiece import read_sentencepiece
from cambrian.release.templates import RELEASE_TEMPLATES, encode_release_conversation, find_template
from cambrian.runtime import RuntimeConfig
from cambrian.training.config import Recipe
from cambrian.training.phases import Phase, Places, train_phase, use_device
from cambrian.training.samples import Samples
from tests.release.test_sentencepiece import write_model
from tests.training import tiny

if TYPE_CHECKING:
    from pathlib import Path

    from cambrian.models.config import ModelConfig

RUNTIME = RuntimeConfig(device="cpu", threads=1)
# the template's own end of an answer, and what pads
SPECIAL_TOKENS = {
    "llama_3": ("<|eot_id|>", "<|reserved_special_token_0|>"),
    "vicuna_v1": ("</s>", "<unk>"),
    "chatml_direct": ("<|im_end|>", "<|endoftext|>"),
    "phi3": ("<|end|>", "<unk>"),
}
BYTE_LEVEL = {
    "llama_3": ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>"],
    "chatml_direct": ["<|im_start|>"],
}
SPEAKERS = {"phi3": ["<|system|>", "<|user|>", "<|assistant|>"]}


def write_tokenizer(folder: Path, name: str) -> int:
    """Write the template's kind of tokenizer (bytes, or SentencePiece with bytes); return its size."""
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers

    end, pad = SPECIAL_TOKENS[name]
    if name in BYTE_LEVEL:
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        backend = Backend(models.BPE(vocab={letter: index for index, letter in enumerate(alphabet)}, merges=[]))
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        backend.add_special_tokens([*BYTE_LEVEL[name], end, pad])
    else:
        added = [*SPEAKERS[name], end] if name in SPEAKERS else []
        backend = read_sentencepiece(write_model(folder / "tokenizer.model"), added)
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": pad, "eos_token": end}))
    size: int = backend.get_vocab_size()
    return size


def make_records() -> list[Record]:
    texts = (
        ("<image>\nWhat colour is it?", "red", " And now?\n", "Still red, I think. "),
        ("one word, please", " blue\n"),
        ("look: <image>", "a b\nc"),
    )
    turns = [tuple(Turn("gpt" if i % 2 else "human", text) for i, text in enumerate(row)) for row in texts]
    return [
        Record(f"r{i}", "squares", row, f"{i}.png" if "<image>" in row[0].text else None) for i, row in enumerate(turns)
    ]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("templates")
    tiny.write_backbones(folder / "backbones")
    tiny.write_data(folder, make_records())
    with write_folder(folder / "mix") as partial:
        write_records(partial / "records.parquet", make_records(), {"squares": "General"})
    for name in RELEASE_TEMPLATES:
        with write_folder(folder / "backbones" / name) as partial:
            tiny.write_language_model(partial, write_tokenizer(partial, name), num_positions=2048)
    return folder


def model_config(name: str) -> ModelConfig:
    return tiny.MODEL.model_copy(update={"llm": name, "template": name})


def expected(name: str, tokenizer: Tokenizer) -> list[Any]:
    """The release's own ids and labels of the records, whose images fill nine positions."""
    template = RELEASE_TEMPLATES[name]
    return [encode_release_conversation(record.turns, template, tokenizer, 9) for record in make_records()]


@pytest.mark.parametrize("name", RELEASE_TEMPLATES)
def test_samples_have_the_ids_and_labels_of_the_release(name: str, world: Path) -> None:
    tokenizer = read_tokenizer(world / "backbones" / name)
    samples = Samples(
        make_records(), lambda _: tiny.encode_png((255, 0, 0)), specs=[], num_image_positions=9,
        template=find_template(name), tokenizer=tokenizer, use_images=True, max_length=2048, max_unusable_share=0.0,
        image_cache_mib=1, num_workers=0, features=None,
    )  # fmt: skip
    batch = samples.read_batch([0, 1, 2])
    assert batch is not None
    for row, encoded in enumerate(expected(name, tokenizer)):
        assert batch.input_ids[row][batch.attention_mask[row]].tolist() == encoded.input_ids
        assert batch.labels[row][batch.attention_mask[row]].tolist() == encoded.labels
        assert (batch.labels[row][~batch.attention_mask[row]] == IGNORE_LABEL).all()
        answers = [turn.text.strip() for turn in make_records()[row].turns if turn.speaker == "gpt"]
        learned = tokenizer.decode([label for label in encoded.labels if label != IGNORE_LABEL])
        assert "".join(learned.split()) == "".join("".join(answers).split())


@pytest.mark.parametrize("name", RELEASE_TEMPLATES)
def test_one_step_has_the_loss_of_the_releases_labels(
    name: str, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # checkpoints lie in the working folder
    backbones = world / "backbones"
    at = Places(
        backbones=backbones, data=world / "mix", pool=world / "pool", output=tmp_path / "model",
        metrics=tmp_path / "metrics.json", curve=None,
    )  # fmt: skip
    recipe = parse_block(Recipe, {**tiny.RECIPE, "epochs": 1, "max_length": 2048}, where="recipe")
    phase = Phase("runs.x", frozenset({"connector", "llm"}), initial=None, use_images=True, seed=0)
    train_phase(phase, model_config(name), recipe, RUNTIME, tiny.TRAINING, at)

    use_device(RUNTIME, 0)
    model = build_model(model_config(name), backbones=backbones, seed=0)
    encoded = expected(name, read_tokenizer(backbones / name))
    pictures = [tiny.encode_png(tiny.COLOURS["red"]), None, tiny.encode_png(tiny.COLOURS["blue"])]
    views = [picture and preprocess(picture, model.image_specs) for picture in pictures]
    batch = collate(encoded, views, [picture and (10, 8) for picture in pictures], pad_id=0)
    metrics = json.loads(at.metrics.read_text())
    assert metrics["steps"] == 1
    assert metrics["unusable_records"] == 0
    assert metrics["tokens"] == sum(len(one.input_ids) for one in encoded)
    # rows may stand in another order in the step, and float32 sums round with it
    assert metrics["final_loss"] == pytest.approx(model.loss(batch).item(), abs=1e-4)

    question = ("What colour is it?", pictures[0])
    answerer = open_own_model(tmp_path / "model", backbones=backbones, device="cpu")
    first_learned = next(index for index, label in enumerate(encoded[0].labels) if label != IGNORE_LABEL)
    assert answerer.length(question) == first_learned
    assert len(answerer.generate(answerer.prepare([question]), max_new_tokens=2)) == 1


@pytest.mark.parametrize("name", RELEASE_TEMPLATES)
def test_evaluation_and_chat_ask_with_what_stands_before_the_learned_answer(name: str, world: Path) -> None:
    tokenizer = read_tokenizer(world / "backbones" / name)
    template = RELEASE_TEMPLATES[name]
    prompt = encode_prompt("What colour is it?", True, find_template(name), tokenizer, 9)
    trained = expected(name, tokenizer)[0]
    first_learned = next(index for index, label in enumerate(trained.labels) if label != IGNORE_LABEL)
    assert trained.input_ids[: len(prompt)] == prompt
    assert len(prompt) == first_learned
    talk = encode_dialogue(
        [], "What colour is it?", num_images=1, template=template, tokenizer=tokenizer, num_image_positions=9
    )
    assert talk == prompt
    later = encode_dialogue(
        [Exchange("What colour is it?", "red")],
        "And now?",
        num_images=1,
        template=template,
        tokenizer=tokenizer,
        num_image_positions=9,
    )
    assert later[: len(prompt)] == prompt
