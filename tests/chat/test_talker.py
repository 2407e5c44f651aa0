import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from cambrian.artifacts import MANIFEST_NAME, read_json
from cambrian.chat.dialogue import Exchange
from cambrian.chat.talker import Talker, find_backbones, read_talker
from cambrian.data.conversation import TURNS
from cambrian.evaluation.answering import OwnAnswerer
from cambrian.evaluation.asking import answer
from cambrian.interfaces import ArtifactError, ParamsError, RecordError
from tests.chat.conftest import NUM_POSITIONS, png


def ask(talker: Talker, question: str = "what colour is it", **changes: Any) -> str:
    values: dict[str, Any] = {"images": [png(9, 5)], "exchanges": [], "max_new_tokens": 6, **changes}
    return talker.answer(values["images"], values["exchanges"], question, max_new_tokens=values["max_new_tokens"]).text


def test_a_first_answer_is_the_evaluations(talker: Talker) -> None:
    evaluated = OwnAnswerer(talker.model, talker.tokenizer, TURNS, "cpu")
    prompts = [("what colour is it", png(9, 5)), ("which", png(4, 4)), ("which", None)]
    expected = answer(evaluated, prompts, batch_size=2, max_new_tokens=6, what="test")
    for question, image in prompts:
        assert ask(talker, question, images=[] if image is None else [image]) == expected[question, image]


def test_an_earlier_exchange_changes_the_answer_and_a_new_conversation_forgets_it(talker: Talker) -> None:
    first = ask(talker)
    assert ask(talker, exchanges=[Exchange("which", "blue blue blue")]) != first
    assert ask(talker) == first


def test_the_picture_changes_the_answer(talker: Talker) -> None:
    answers = {ask(talker, images=[png(8, 8, colour)]) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))}
    assert len(answers | {ask(talker, images=[])}) > 1


@pytest.mark.parametrize("size", [(25, 1), (1, 24), (200, 1), (1, 200), (1000, 5)])
def test_pictures_past_24_to_1_are_answered(talker: Talker, size: tuple[int, int]) -> None:
    answer = talker.answer([png(*size)], [], "which", max_new_tokens=2)
    assert len(answer.layers) == 6
    assert not any(layer.means().isnan().any() for layer in answer.layers)


def test_a_picture_that_is_none_is_refused(talker: Talker) -> None:
    with pytest.raises(RecordError, match="5 bytes cannot be decoded"):
        ask(talker, images=[b"hello"])


def test_a_conversation_past_what_the_llm_was_made_for_is_refused_with_both_numbers(talker: Talker) -> None:
    long = [Exchange("what colour is it", "it is red")] * 40
    with pytest.raises(RecordError, match=rf"fills \d+ positions, the language model was made for {NUM_POSITIONS}"):
        ask(talker, exchanges=long)


def test_an_answer_ends_where_the_positions_of_the_llm_end(talker: Talker, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = []

    def keep_limit(*_: Any, max_new_tokens: int, **__: Any) -> list[list[int]]:
        limits.append(max_new_tokens)
        return [[]]

    monkeypatch.setattr("cambrian.chat.talker.generate", keep_limit)
    assert ask(talker, "which", images=[], max_new_tokens=1000) == ""
    assert limits == [NUM_POSITIONS - len(talker.tokenizer.encode("<user> which"))]


@pytest.fixture
def copied(scale: Path, tmp_path: Path) -> Path:
    """A run of its own, beside the backbones."""
    shutil.copytree(scale, tmp_path / "scale")
    return tmp_path / "scale" / "runs" / "sva"


def rewrite(folder: Path, name: str, data: bytes) -> None:
    """Replace a file as someone would who also mends the manifest."""
    (folder / name).write_bytes(data)
    manifest = read_json(folder / MANIFEST_NAME)
    manifest["files"][name]["bytes"] = len(data)
    (folder / MANIFEST_NAME).write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("layout.newline"), "layout.newline is missing"),
        (lambda tensors: tensors.update(stray=torch.zeros(1)), "stray is not part of the model"),
        (
            lambda tensors: tensors.update({"layout.newline": torch.zeros(5)}),
            r"layout.newline has shape \(5,\), the model needs \(24,\)",
        ),
    ],
    ids=["missing", "extra", "misshapen"],
)
def test_a_checkpoint_with_a_wrong_tensor_is_named(copied: Path, change: Any, message: str) -> None:
    tensors = load_file(copied / "model.safetensors")
    change(tensors)
    save_file(tensors, copied.parent / "changed.safetensors")
    rewrite(copied, "model.safetensors", (copied.parent / "changed.safetensors").read_bytes())
    with pytest.raises(ArtifactError, match=message):
        read_talker(copied, backbones=None, device="cpu")


def test_a_pickle_in_place_of_safetensors_is_not_opened(copied: Path) -> None:
    torch.save({"layout.newline": torch.zeros(24)}, copied.parent / "pickle")
    rewrite(copied, "model.safetensors", (copied.parent / "pickle").read_bytes())
    with pytest.raises(ArtifactError, match="is not a safetensors file"):
        read_talker(copied, backbones=None, device="cpu")


def test_an_unknown_template_is_named(copied: Path) -> None:
    stored = read_json(copied / "model.json")
    stored["config"]["template"] = "riddles"
    rewrite(copied, "model.json", json.dumps(stored).encode())
    with pytest.raises(ParamsError, match="conversation template: unknown name 'riddles'"):
        read_talker(copied, backbones=None, device="cpu")


def test_a_folder_that_is_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"nothing has no manifest\.json"):
        read_talker(tmp_path / "nothing", backbones=None, device="cpu")


def test_a_device_that_is_not_there_is_named(scale: Path) -> None:
    with pytest.raises(ArtifactError, match="--device nowhere: "):
        read_talker(scale / "runs" / "sva", backbones=None, device="nowhere")


def test_backbones_are_looked_for_beside_the_runs(scale: Path, tmp_path: Path) -> None:
    assert find_backbones(scale / "runs" / "sva") == scale.resolve() / "backbones"
    with pytest.raises(ArtifactError, match="name their folder with --backbones"):
        find_backbones(tmp_path / "somewhere" / "else")
