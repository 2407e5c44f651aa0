import json
import shutil
from pathlib import Path

import pytest
import torch

from cambrian.artifacts import write_folder
from cambrian.interfaces import ArtifactError, ParamsError
from cambrian.models.multimodal import MultimodalModel
from cambrian.models.tensor_files import read_tensors, write_tensors
from cambrian.models.weights import build_model, load_weights, outline_model, read_model, write_model
from tests.models.conftest import (
    CONNECTORS,
    VIT,
    encoder_spec,
    make_batch,
    make_model,
    model_config,
    real_logits,
    write_tiny_encoder,
    write_tiny_llm,
)  # fmt: skip
from tests.models.test_encoders import mend_manifest


def change_all(model: MultimodalModel) -> None:
    with torch.no_grad():
        for index, parameter in enumerate(model.parameters()):
            parameter.add_(0.01 * torch.cos(torch.arange(parameter.numel()).view_as(parameter) + index))


def store(folder: Path, model: MultimodalModel, connector: str, parts: set[str]) -> None:
    with write_folder(folder) as partial:
        write_model(partial, model, model_config(connector), parts)


@pytest.mark.parametrize("connector", CONNECTORS)
def test_a_model_is_read_back_bit_for_bit(backbones: Path, tmp_path: Path, connector: str) -> None:
    model = make_model(backbones, connector)
    change_all(model)
    store(tmp_path / "run", model, connector, {"connector", "llm", "encoders"})
    batch = make_batch(model, [[1, "image", 7, 8]], [(8, 4)])
    again = read_model(tmp_path / "run", backbones=backbones).eval()
    assert torch.equal(real_logits(again, batch)[0], real_logits(model, batch)[0])


def test_only_the_named_parts_are_stored_and_the_rest_comes_from_backbones(backbones: Path, tmp_path: Path) -> None:
    model = make_model(backbones, "sva-in-llm")
    untouched = {name: tensor.clone() for name, tensor in model.llm.state_dict().items()}
    change_all(model)
    store(tmp_path / "adapter", model, "sva-in-llm", {"connector"})
    names = read_tensors(tmp_path / "adapter" / "model.safetensors")
    assert {name.split(".")[0] for name in names} == {"connector", "layout", "aggregators"}
    again = read_model(tmp_path / "adapter", backbones=backbones)
    assert all(torch.equal(tensor, untouched[name]) for name, tensor in again.llm.state_dict().items())
    assert torch.equal(again.connector.queries, model.connector.queries)


def test_the_same_model_gives_the_same_bytes(backbones: Path, tmp_path: Path) -> None:
    model = make_model(backbones, "sva")
    for name in ("a", "b"):
        store(tmp_path / name, model, "sva", {"connector", "llm"})
    for file in ("model.json", "model.safetensors", "manifest.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_tied_embeddings_are_stored_once(backbones: Path, tmp_path: Path) -> None:
    write_tiny_llm(tmp_path / "tied", tie_word_embeddings=True)
    (tmp_path / "vit").symlink_to(backbones / "vit")
    config = model_config("mlp").model_copy(update={"llm": "tied", "encoders": ("vit",)})
    model = build_model(config, backbones=tmp_path, seed=0)
    assert model.llm.lm_head.weight is model.llm.model.embed_tokens.weight
    change_all(model)
    with write_folder(tmp_path / "run") as partial:
        write_model(partial, model, config, {"connector", "llm"})
    again = read_model(tmp_path / "run", backbones=tmp_path)
    assert torch.equal(again.llm.lm_head.weight, model.llm.lm_head.weight)
    assert again.llm.lm_head.weight is again.llm.model.embed_tokens.weight


@pytest.mark.parametrize("parts", [set(), {"connector"}, {"connector", "llm"}], ids=len)
def test_an_outline_is_the_model_whose_llm_is_still_in_a_file(parts: set[str], backbones: Path, tmp_path: Path) -> None:
    expected, initial = build_model(model_config("sva-in-llm"), backbones=backbones, seed=0), None
    if parts:
        other, initial = make_model(backbones, "sva-in-llm"), tmp_path / "adapter"
        change_all(other)
        store(initial, other, "sva-in-llm", parts)
        load_weights(expected, initial)
    torch.manual_seed(5)
    outline, weights = outline_model(model_config("sva-in-llm"), backbones=backbones, seed=0, initial=initial)
    drawn = torch.rand(())
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(()))  # torch's generator is as it was
    assert all(parameter.is_meta for parameter in outline.llm.parameters())
    assert [name for name, _ in outline.named_parameters()] == [name for name, _ in expected.named_parameters()]
    buffers = dict(outline.named_buffers())
    assert any("inv_freq" in name for name in buffers)  # no file has them
    for name, value in [*expected.named_parameters(), *expected.named_buffers()]:
        found = buffers[name] if name in buffers else outline.get_parameter(name)
        assert torch.equal(weights.read(name.removeprefix("llm.")) if found.is_meta else found, value), name


def test_tied_embeddings_are_one_parameter_of_an_outline_too(backbones: Path, tmp_path: Path) -> None:
    write_tiny_llm(tmp_path / "tied", tie_word_embeddings=True)
    (tmp_path / "vit").symlink_to(backbones / "vit")
    config = model_config("mlp").model_copy(update={"llm": "tied", "encoders": ("vit",)})
    outline, _ = outline_model(config, backbones=tmp_path, seed=0, initial=None)
    assert outline.llm.lm_head.weight is outline.llm.model.embed_tokens.weight
    expected = build_model(config, backbones=tmp_path, seed=0)
    assert [name for name, _ in outline.named_parameters()] == [name for name, _ in expected.named_parameters()]


@pytest.mark.parametrize("damage", ["missing", "misshapen", "not safetensors"])
def test_an_outline_of_a_damaged_llm_is_refused_before_its_weights_are_read(
    damage: str, backbones: Path, tmp_path: Path
) -> None:
    for name in ("vit", "convnet"):
        (tmp_path / name).symlink_to(backbones / name)
    shutil.copytree(backbones / "llm", tmp_path / "llm")
    path = tmp_path / "llm" / "model.safetensors"
    tensors = read_tensors(path)
    if damage == "missing":
        del tensors["lm_head.weight"]
    tensors["model.norm.weight"] = torch.zeros(3)
    write_tensors(path, tensors)
    if damage == "not safetensors":
        path.write_bytes(b"pickle")
    mend_manifest(tmp_path / "llm")
    message = {
        "missing": "lm_head.weight is missing", "misshapen": r"model.norm.weight has shape \(3,\), the model needs",
        "not safetensors": "is not a safetensors file",
    }  # fmt: skip
    with pytest.raises(ArtifactError, match=message[damage]):
        outline_model(model_config("sva"), backbones=tmp_path, seed=0, initial=None)


def test_an_adapter_of_another_connector_names_the_tensors(backbones: Path, tmp_path: Path) -> None:
    store(tmp_path / "adapter", make_model(backbones, "mlp"), "mlp", {"connector"})
    with pytest.raises(ArtifactError, match=r"connector\.layers\.0\.weight has shape"):
        load_weights(make_model(backbones, "interpolate"), tmp_path / "adapter")
    with pytest.raises(ArtifactError, match=r"is missing.*is not part of the model"):
        load_weights(make_model(backbones, "sva"), tmp_path / "adapter")


def test_an_incomplete_weights_file_changes_nothing(backbones: Path, tmp_path: Path) -> None:
    model = make_model(backbones, "mlp")
    store(tmp_path / "run", model, "mlp", {"connector"})
    tensors = read_tensors(tmp_path / "run" / "model.safetensors")
    removed = sorted(tensors)[0]
    write_tensors(tmp_path / "run" / "model.safetensors", {k: v + 1 for k, v in tensors.items() if k != removed})
    mend_manifest(tmp_path / "run")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ArtifactError, match=f"{removed} is missing"):
        load_weights(model, tmp_path / "run")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_file_that_is_not_safetensors_is_refused(backbones: Path, tmp_path: Path) -> None:
    store(tmp_path / "run", make_model(backbones, "mlp"), "mlp", {"connector"})
    (tmp_path / "run" / "model.safetensors").write_bytes(b"pickle")
    mend_manifest(tmp_path / "run")
    with pytest.raises(ArtifactError, match="is not a safetensors file"):
        read_model(tmp_path / "run", backbones=backbones)


def test_a_backbone_that_changed_since_is_refused(backbones: Path, tmp_path: Path) -> None:
    for name in ("convnet", "llm"):
        (tmp_path / name).symlink_to(backbones / name)
    write_tiny_encoder(tmp_path / "vit", "vit_tiny_patch16_224", VIT, encoder_spec(24, layers=[-1], norm=True))
    store(tmp_path / "run", make_model(tmp_path, "mlp"), "mlp", {"connector"})
    manifest = json.loads((tmp_path / "vit" / "manifest.json").read_text())
    manifest["files"]["model.safetensors"]["sha256"] = "0" * 64
    (tmp_path / "vit" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(
        ArtifactError, match=r"made with another \([0-9a-f]{12}\) backbone vit, the one at hand is 0000"
    ):
        read_model(tmp_path / "run", backbones=tmp_path)


def test_a_missing_backbone_says_where_it_was_looked_for(backbones: Path) -> None:
    config = model_config("mlp").model_copy(update={"encoders": ("vit", "dinov3")})
    with pytest.raises(ArtifactError, match="dinov3 has no manifest"):
        build_model(config, backbones=backbones, seed=0)


def test_an_empty_slot_is_no_backbone(backbones: Path, tmp_path: Path) -> None:
    (tmp_path / "llm").symlink_to(backbones / "llm")
    with write_folder(tmp_path / "none"):
        pass
    config = model_config("mlp").model_copy(update={"encoders": ("none",)})
    with pytest.raises(ArtifactError, match=r"holds no model\.safetensors"):
        build_model(config, backbones=tmp_path, seed=0)


def test_a_connector_that_does_not_fit_is_a_params_error(backbones: Path) -> None:
    config = model_config("sva")
    connector = config.connector.model_copy(update={"num_heads": 5})
    with pytest.raises(ParamsError, match="a connector for vit, convnet and llm: dim 16 does not divide into 5 heads"):
        build_model(config.model_copy(update={"connector": connector}), backbones=backbones, seed=0)


def test_an_unknown_language_model_type_is_refused(backbones: Path, tmp_path: Path) -> None:
    (tmp_path / "vit").symlink_to(backbones / "vit")
    with write_folder(tmp_path / "llm") as partial:
        (partial / "config.json").write_text('{"model_type": "lama"}')
        (partial / "model.safetensors").write_bytes(b"")
    config = model_config("mlp").model_copy(update={"encoders": ("vit",)})
    with pytest.raises(ArtifactError, match=r"model_type.*'lama'; did you mean 'llama'"):
        build_model(config, backbones=tmp_path, seed=0)
