"""Published encoders from files with the real ones' names: the same features as their publishers' classes give."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file

from cambrian.artifacts import write_folder
from cambrian.backbones import published_encoders
from cambrian.backbones.config import FolderSource, HubSource, PublishedEncoder, PublishedSource
from cambrian.backbones.fetching import fetch_address, pinned
from cambrian.backbones.published_encoders import convert_published_encoder, draw_tensors, read_tensors_of
from cambrian.interfaces import ArtifactError, ParamsError
from cambrian.models.encoders import read_encoder
from cambrian.models.tensor_files import write_tensors
from cambrian.models.torchvision_shim import declare_missing_operators
from tests.backbones.hub import REVISION, serve_hub
from tests.backbones.published import (
    ROWS,
    SIDE,
    VIT,
    timm_tensors,
    tiny,
    write_beit,
    write_clip,
    write_dinov2,
    write_dpt,
)

if TYPE_CHECKING:
    from pathlib import Path

    from cambrian.models.encoders import VisionEncoder
    from cambrian.release.encoders import EncoderRow

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


def local(folder: Path) -> FolderSource:
    return FolderSource(kind="folder", path=str(folder))


def convert(row: EncoderRow, source: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> VisionEncoder:
    monkeypatch.setattr(published_encoders, "find_encoder_row", lambda name, side: row)
    config = PublishedEncoder(kind="published-encoder", row="tiny", side=None, source=local(source), dtype="float32")
    with write_folder(output) as folder:
        convert_published_encoder(config, seed=0, name="tiny", folder=folder)
    return read_encoder(output)


def pixels_of(side: int) -> torch.Tensor:
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(3))


def as_map(states: torch.Tensor, *, num_prefix_tokens: int) -> torch.Tensor:
    patches = states[:, num_prefix_tokens:]
    side = round(patches.shape[1] ** 0.5)
    return patches.transpose(1, 2).unflatten(2, (side, side))


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    declare_missing_operators()
    from transformers.utils import logging

    logging.disable_progress_bar()


def test_clip_gives_the_features_of_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = write_clip(tmp_path / "source")
    encoder = convert(tiny("clip-l-336", **VIT), tmp_path / "source", tmp_path / "out", monkeypatch)
    pixels = pixels_of(SIDE)
    with torch.no_grad():
        states = model.vision_model(pixels, output_hidden_states=True).hidden_states[-2]
        torch.testing.assert_close(encoder(pixels), as_map(states, num_prefix_tokens=1), atol=2e-6, rtol=1e-5)


def test_dinov2_gives_the_features_of_transformers_at_the_side_of_its_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = write_dinov2(tmp_path / "source")
    row = tiny("dinov2-l-336", side=42, embed_dim=16, depth=2, num_heads=2, init_values=1.0)
    encoder = convert(row, tmp_path / "source", tmp_path / "out", monkeypatch)
    pixels = pixels_of(42)
    with torch.no_grad():
        states = model(pixels).last_hidden_state
        torch.testing.assert_close(encoder(pixels), as_map(states, num_prefix_tokens=1), atol=2e-6, rtol=1e-5)


def test_dinov2_is_brought_to_another_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_dinov2(tmp_path / "source")
    row = tiny("dinov2-l-336", side=70, embed_dim=16, depth=2, num_heads=2, init_values=1.0)
    encoder = convert(row, tmp_path / "source", tmp_path / "out", monkeypatch)
    assert (encoder.grid, encoder.image_spec.side) == (5, 70)


@pytest.mark.parametrize(("name", "write"), [("midas3-l-384", write_dpt), ("midas31-l-512", write_beit)])
def test_midas_gives_the_features_of_transformers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, write: Any
) -> None:
    model = write(tmp_path / "source")
    model = getattr(model, "dpt", model)
    row = tiny(name, side=32, **SIZES, image_size=32, patch_size=16)
    encoder = convert(row, tmp_path / "source", tmp_path / "out", monkeypatch)
    pixels = pixels_of(32)
    with torch.no_grad():
        states = model(pixels, output_hidden_states=True).hidden_states[-1]
        torch.testing.assert_close(encoder(pixels), as_map(states, num_prefix_tokens=1), atol=2e-6, rtol=1e-5)


def write_named(folder: Path, row: EncoderRow, tensors: dict[str, torch.Tensor], *, entry: str | None = None) -> None:
    """Write tensors under the prefix of a row, as the kind of file that it names, with others beside them."""
    named = {f"{row.prefix}{name}": tensor for name, tensor in tensors.items()}
    named |= {f"{beginning}there": torch.zeros(2) for beginning in row.unused}
    folder.mkdir()
    if row.files:
        write_tensors(folder / row.files[0], named)
    else:
        torch.save({entry: named, "epoch": 3} if entry else named, folder / "weights.pth.tar")


TIMM: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("eva02-l-336", VIT, {}),
    ("siglip-l-384", {**VIT, "img_size": 32, "patch_size": 8}, {"num_classes": 0}),
    ("siglip-so400m-384", VIT, {"num_classes": 0}),
    ("mocov3-b-224", {**VIT, "patch_size": 14}, {}),
    ("mae-l-224", {**VIT, "patch_size": 14}, {"num_classes": 0}),
    ("ijepa-h-224", VIT, {"num_classes": 0}),
    ("sam-l-1024", {"img_size": 32, "patch_size": 16, "embed_dim": 16, "depth": 2, "num_heads": 2}, {"num_classes": 0}),
    ("supvit-l-224", {**VIT, "patch_size": 14}, {}),
    ("maws-l-224", {**VIT, "patch_size": 14}, {"num_classes": 0}),
]


@pytest.mark.parametrize(("name", "sizes", "changes"), TIMM, ids=[row[0] for row in TIMM])
def test_weights_with_timms_names_are_found_below_their_prefix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, sizes: dict[str, Any], changes: dict[str, Any]
) -> None:
    row = tiny(name, side=sizes["img_size"], **sizes)
    tensors = timm_tensors(row, **changes)
    write_named(tmp_path / "source", row, tensors, entry=row.entry)
    encoder = convert(row, tmp_path / "source", tmp_path / "out", monkeypatch)
    own = encoder.backbone.state_dict()
    assert len(own) > 20
    assert all(torch.equal(tensor, tensors[key]) for key, tensor in own.items())


@pytest.mark.parametrize("name", ["convnext-l-512", "convnext-xxl-1024-stages"])
def test_convnext_takes_open_clips_names_as_timm_itself_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    from timm.models.convnext import checkpoint_filter_fn

    row = tiny(name, side=64, depths=[1, 1, 1, 1], dims=[4, 6, 8, 10])
    tensors = timm_tensors(row)
    named = {
        f"visual.trunk.{key}": tensor for key, tensor in tensors.items() if not key.startswith(("head.p", "head.f"))
    }
    if "head.pre_logits.fc.weight" in tensors:
        named |= {f"visual.head.mlp.fc1.{kind}": tensors[f"head.pre_logits.fc.{kind}"] for kind in ("weight", "bias")}
        named["visual.head.mlp.fc2.weight"] = tensors["head.fc.weight"]
    else:
        named["visual.head.proj.weight"] = tensors["head.fc.weight"]
    named["logit_scale"] = torch.ones(())
    (tmp_path / "source").mkdir()
    write_tensors(tmp_path / "source" / "open_clip_model.safetensors", named)
    encoder = convert(row, tmp_path / "source", tmp_path / "out", monkeypatch)
    by_timm = checkpoint_filter_fn(named, None)
    own = encoder.backbone.state_dict()
    assert all(torch.equal(tensor, by_timm[key]) for key, tensor in own.items())
    assert encoder.channels == (28 if name.endswith("stages") else 10)


def test_stable_diffusion_comes_with_the_states_of_the_empty_prompt(tmp_path: Path) -> None:
    from tests.backbones.diffusion import DIFFUSION, write_diffusion

    row = ROWS["sd21-512"].model_copy(update={"model_args": DIFFUSION})
    expected = write_diffusion(tmp_path)
    found = read_tensors_of(row, local(tmp_path), name="sd21-512")
    assert torch.equal(found["prompt"], expected)
    assert found["prompt"].shape == (1, 77, 6)
    assert found["unet.conv_in.weight"].shape[0] == 8
    (tmp_path / "text_encoder" / "model.safetensors").unlink()
    with pytest.raises(ArtifactError, match=r"lacks text_encoder/model.safetensors, which the empty prompt needs"):
        read_tensors_of(row, local(tmp_path), name="sd21-512")


def test_random_weights_follow_the_seed_and_leave_torchs_generator_alone() -> None:
    row = tiny("clip-l-336", **VIT)
    state = torch.random.get_rng_state()
    first, same, other = (draw_tensors(row, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(tensor, same[name]) for name, tensor in first.items())
    assert not torch.equal(first["blocks.0.attn.qkv.weight"], other["blocks.0.attn.qkv.weight"])


def broken(kind: str, folder: Path) -> None:
    """Spoil a CLIP folder."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    name = "vision_model.encoder.layers.0.mlp.fc1.weight"
    if kind == "missing":
        del tensors[name]
    elif kind == "missing-projection":
        del tensors["vision_model.encoder.layers.0.self_attn.k_proj.weight"]
    elif kind == "extra":
        tensors["vision_model.encoder.layers.9.mlp.fc1.weight"] = torch.zeros(2)
    elif kind == "foreign":
        tensors["decoder.weight"] = torch.zeros(2)
    elif kind == "misshapen":
        tensors[name] = torch.zeros(3, 3)
    write_tensors(path, tensors)
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif kind == "no-file":
        path.rename(folder / "other.bin")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", r"blocks.0.mlp.fc1.weight is missing. It is not the checkpoint of clip-l-336"),
        ("missing-projection", r"blocks.0.attn.k_proj.weight is missing beside"),
        ("extra", r"blocks.9.mlp.fc1.weight is not part of the model"),
        ("foreign", r"decoder.weight is in no checkpoint of this encoder"),
        ("misshapen", r"blocks.0.mlp.fc1.weight has shape \(3, 3\), the model needs \(64, 16\)"),
        ("truncated", r"model.safetensors is not a safetensors file"),
        ("no-file", r"has none of model.safetensors, pytorch_model.bin; it has config.json, other.bin"),
    ],
)
def test_a_broken_checkpoint_is_refused_by_name(tmp_path: Path, kind: str, message: str) -> None:
    write_clip(tmp_path)
    broken(kind, tmp_path)
    with pytest.raises(ArtifactError, match=message):
        read_tensors_of(tiny("clip-l-336", **VIT), local(tmp_path), name="clip-l-336")


class Code:
    """Something whose unpickling would run code."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("this must never be printed",)


def test_pickled_code_is_never_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"vision_model.weight": torch.zeros(1), "code": Code()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ArtifactError, match=r"Pickled code is never run"):
        read_tensors_of(tiny("clip-l-336", **VIT), local(tmp_path), name="clip-l-336")
    assert capsys.readouterr().out == ""


def test_a_pickled_checkpoint_without_the_rows_entry_is_named(tmp_path: Path) -> None:
    torch.save({"model": {"weight": torch.zeros(1)}, "epoch": 1}, tmp_path / "vit-b-300ep.pth.tar")
    with pytest.raises(ArtifactError, match=r"has no entry 'state_dict', it has epoch, model"):
        read_tensors_of(tiny("mocov3-b-224", **VIT), local(tmp_path), name="mocov3-b-224")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Point huggingface_hub to a hub of this machine with one CLIP; the real one is out of reach."""
    from huggingface_hub import constants

    write_clip(tmp_path / "repository")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with serve_hub(tmp_path / "repository", "someone/clip") as address:
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        yield address  # type: ignore[misc]


@pytest.mark.usefixtures("hub")
def test_a_repository_of_the_hub_is_fetched_at_its_commit() -> None:
    row = tiny("clip-l-336", **VIT).model_copy(update={"checkpoint": "someone/clip", "revision": REVISION})
    tensors = read_tensors_of(row, PublishedSource(kind="published"), name="clip-l-336")
    assert tensors["blocks.1.attn.qkv.weight"].shape == (48, 16)


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(
    ("repository", "revision"), [("someone/clip", "f" * 40), ("someone/else", REVISION)], ids=["revision", "repository"]
)
def test_a_revision_or_repository_that_the_hub_does_not_have_is_named(repository: str, revision: str) -> None:
    source = HubSource(kind="hub", repository=repository, revision=revision)
    with pytest.raises(ArtifactError, match=rf"{repository} at {revision} cannot be fetched"):
        read_tensors_of(tiny("clip-l-336", **VIT), source, name="clip-l-336")


def test_an_address_is_fetched_once_and_must_be_the_pinned_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import hashlib

    (tmp_path / "files").mkdir()
    torch.save({"weight": torch.ones(1)}, tmp_path / "files" / "vit.pth")
    digest = hashlib.sha256((tmp_path / "files" / "vit.pth").read_bytes()).hexdigest()
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "cache"))
    with serve_hub(tmp_path / "files", "some/files") as address:
        url = f"{address}/some/files/resolve/{REVISION}/vit.pth"
        path = fetch_address(url, digest)
        with pytest.raises(ArtifactError, match="is not the file with SHA-256 0000"):
            fetch_address(url, "0" * 64)
        with pytest.raises(ArtifactError, match="cannot be fetched"):
            fetch_address(url.replace("vit.pth", "no.pth"), "1" * 64)
    assert fetch_address(url, digest) == path  # from the cache: the server is gone


def test_what_is_not_pinned_or_not_published_is_said() -> None:
    with pytest.raises(ArtifactError, match=r"mocov3-l-224: nobody has published these weights"):
        pinned(ROWS["mocov3-l-224"].checkpoint, None, row="mocov3-l-224")
    with pytest.raises(ArtifactError, match=r"no revision of .*pth.tar is pinned: look up the SHA-256 of the file"):
        pinned(ROWS["mocov3-b-224"].checkpoint, None, row="mocov3-b-224")
    with pytest.raises(ArtifactError, match=r"no revision of apple/DFN2B-CLIP-ViT-L-14 is pinned: look up the commit"):
        pinned("apple/DFN2B-CLIP-ViT-L-14", None, row="dfn-l-224")


def test_a_side_that_the_row_cannot_take_is_refused_before_anything_is_fetched(tmp_path: Path) -> None:
    config = PublishedEncoder(
        kind="published-encoder", row="clip-l-336", side=448, source=local(tmp_path / "no"), dtype="float32"
    )
    with pytest.raises(ParamsError, match=r"clip-l-336: 448 px, but it takes 336 px only"):
        convert_published_encoder(config, seed=0, name="clip", folder=tmp_path)
