"""A released checkpoint as the folders that this project's own reader, evaluation and chat use.

The release keeps connector and LLM in one checkpoint and no encoders. Here the LLM becomes a backbone beside the
encoders, and connector, newline and aggregators become a run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cambrian.artifacts import MANIFEST_NAME, read_json, read_manifest, write_folder, write_json
from cambrian.interfaces import ArtifactError
from cambrian.models.config import ModelConfig
from cambrian.models.encoders import read_encoder
from cambrian.models.weights import MODEL_NAME, WEIGHTS_NAME, StoredModel
from cambrian.params import look_up
from cambrian.release.building import build_on_meta
from cambrian.release.checkpoints import match_names
from cambrian.release.config import read_config
from cambrian.release.encoders import read_encoder_rows
from cambrian.release.shards import join_shards, open_shards
from cambrian.release.templates import find_release_template
from cambrian.release.tokenizers import write_tokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cambrian.models.connector import FeatureShape
    from cambrian.release.config import ReleaseConfig

_LLM_PREFIX = "llm."
_PADDING_TOKENS = {"llama_3": "<|reserved_special_token_0|>"}
"""By template, where the tokenizer has no unknown token, which pads otherwise.

Source: release, `train_fsdp.py`.
"""


def unpack_checkpoint(source: Path, output: Path, *, backbones: Path, encoders: Sequence[str], template: str) -> None:
    """Write a released model's connector as the run `output`, and its LLM as the backbone `output.name`.

    `encoders` are finished folders of `backbones`, in the release's order. `read_model(output, backbones=backbones)`
    then gives the whole model, and `cambrian chat` talks to it. What was unpacked from `source` before is replaced.
    Types and values stay as they are; one file of the source is open at a time.

    Raises:
        ArtifactError: a file is missing or broken; a tensor is missing, left over or of another shape; an encoder is
            not the one that the connector was trained with; another backbone has the output's name; or the disk is
            full.
        ParamsError: the template is unknown.
    """
    find_release_template(template)
    config = read_config(source)
    shapes = _read_shapes(config, backbones, encoders)
    shards = open_shards(source)
    model = build_on_meta(config, shapes)
    names = match_names(model, shards.shapes, where=source)
    llm = output.name
    _check_is_ours(backbones / llm, source)
    with write_folder(backbones / llm, source=source.name) as partial:
        _write_llm_config(partial, model.llm.config)
        write_tokenizer(partial, source, padding_token=_PADDING_TOKENS.get(template))
        in_llm = {name: ours for name, ours in names.items() if ours.startswith(_LLM_PREFIX)}
        join_shards(partial / WEIGHTS_NAME, shards, {name: ours[len(_LLM_PREFIX) :] for name, ours in in_llm.items()})
    stored = StoredModel(
        config=ModelConfig(encoders=tuple(encoders), connector=config.connector(), llm=llm, template=template),
        parts=["connector"],
        backbones={name: _weights_hash(backbones / name) for name in sorted({*encoders, llm})},
    )
    with write_folder(output, source=source.name) as partial:
        write_json(partial / MODEL_NAME, stored.model_dump(mode="json"))
        join_shards(partial / WEIGHTS_NAME, shards, {name: ours for name, ours in names.items() if name not in in_llm})


def released_encoder_names(source: Path) -> list[str]:
    """Our names (rows of encoders.yaml) of the encoders that a released model's `config.json` names.

    Raises:
        ArtifactError: `config.json` is missing or makes no model.
        ParamsError: an encoder of none of the released models; the message names the nearest.
    """
    names = {row.released_as: name for name, row in read_encoder_rows("final").items() if row.released_as is not None}
    return [look_up(names, tower, where="mm_vision_tower_aux_list") for tower in read_config(source).towers]


def _read_shapes(config: ReleaseConfig, backbones: Path, encoders: Sequence[str]) -> list[FeatureShape]:
    """The shapes that the connector was trained on, after checking that these encoders give them."""
    if len(encoders) != len(config.towers):
        raise ArtifactError(
            f"{len(encoders)} encoders ({', '.join(encoders)}), the checkpoint has {len(config.towers)} "
            f"({', '.join(config.towers)}): name one for each, in this order"
        )
    connector = config.connector()
    channels = []
    for name, tower, delivered in zip(encoders, config.towers, config.tower_sides(), strict=True):
        encoder = read_encoder(backbones / name)
        window = max(1, min(encoder.grid // connector.side, connector.max_window_side))
        if window * connector.side != delivered:
            raise ArtifactError(
                f"{backbones / name} has a grid of {encoder.grid}, of which a query sees {window} x {window} places; "
                f"the checkpoint was trained with {tower} on a grid of {delivered}: take that encoder at its own "
                "resolution"
            )
        channels.append(encoder.channels)
    return config.shapes_of(channels)


def _check_is_ours(backbone: Path, source: Path) -> None:
    """Refuse to replace a backbone that was not unpacked from this source: an encoder, or an LLM of its own."""
    manifest = backbone / MANIFEST_NAME
    if backbone.exists() and not (manifest.is_file() and read_json(manifest).get("source") == source.name):
        raise ArtifactError(
            f"{backbone} is another backbone, and the checkpoint's LLM would replace it: give the output another name"
        )


def _write_llm_config(folder: Path, config: Any) -> None:
    """Write transformers' own `config.json`, without what the release added to it."""
    known = type(config)().to_dict()
    write_json(folder / "config.json", {name: value for name, value in config.to_dict().items() if name in known})


def _weights_hash(folder: Path) -> str:
    digest: str = read_manifest(folder)["files"][WEIGHTS_NAME]["sha256"]
    return digest
