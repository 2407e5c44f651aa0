"""Trains a small vision encoder by one kind of supervision; only the encoder is kept."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from cambrian.backbones.config import TrainedEncoder
from cambrian.backbones.corpora import ImageCorpus, read_images
from cambrian.backbones.objectives.config import (
    ClassLabelsConfig,
    DepthConfig,
    DiffusionConfig,
    JointEmbeddingConfig,
    LanguageContrastiveConfig,
    MaskedAutoencoderConfig,
    NoObjectiveConfig,
    ObjectiveConfig,
    SegmentationConfig,
    TwoViewConfig,
)
from cambrian.backbones.objectives.dense import ClassLabels, Depth, Diffusion, Segmentation
from cambrian.backbones.objectives.language import LanguageContrastive
from cambrian.backbones.objectives.masked import JointEmbedding, MaskedAutoencoder
from cambrian.backbones.objectives.objective import Objective, Pictures
from cambrian.backbones.objectives.two_view import TwoView
from cambrian.backbones.optimization import Optimization
from cambrian.models.encoders import ImageConfig, write_encoder
from cambrian.models.torchvision_shim import declare_missing_operators
from cambrian.runtime import RuntimeConfig, generator_seed, iter_progress, logged_step


def train_encoder(
    config: TrainedEncoder, *, corpora: Path, seed: int, name: str, runtime: RuntimeConfig, folder: Path
) -> None:
    """Train an encoder from nothing and write it as timm's folder.

    Raises:
        ArtifactError: the corpora are not finished.
        ValueError: architecture, objective and images do not fit each other.
    """
    encoder = build_encoder(config, seed=generator_seed(seed, f"backbones.{name}.weights"))
    if not isinstance(config.objective, NoObjectiveConfig):
        corpus = read_images(corpora)
        pictures = prepare_pictures(corpus, config.spec.image, device=runtime.device)
        generator = torch.Generator().manual_seed(generator_seed(seed, f"backbones.{name}.training"))
        encoder.to(runtime.device).train()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(generator_seed(seed, f"backbones.{name}.heads"))
            objective = build_objective(config.objective, encoder, pictures, corpus, generator)
        _optimize(objective.to(runtime.device), config.objective, name)
    write_encoder(
        folder,
        encoder.cpu().eval(),
        architecture=config.architecture,
        model_args=config.model_args,
        spec=config.spec,
    )


def build_encoder(config: TrainedEncoder, *, seed: int) -> nn.Module:
    """Make the timm model with initial weights that depend on the seed alone.

    Raises:
        ValueError: timm knows no such architecture, or refuses an argument.
    """
    declare_missing_operators()
    import timm

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            module: nn.Module = timm.create_model(config.architecture, pretrained=False, **config.model_args)
        except (RuntimeError, TypeError, AssertionError) as error:
            raise ValueError(f"timm cannot make {config.architecture!r} with {config.model_args}: {error}") from error
    return module


def prepare_pictures(corpus: ImageCorpus, image: ImageConfig, *, device: str) -> Pictures:
    """Bring the corpus to an encoder's side (bicubic, antialiased, rounded to bytes)."""
    pixels = torch.from_numpy(np.ascontiguousarray(corpus.pixels.transpose(0, 3, 1, 2)))
    if pixels.shape[-1] != image.side:
        pixels = torch.cat(
            [
                F.interpolate(part, size=(image.side, image.side), mode="bicubic", antialias=True)
                for part in torch.split(pixels, 1024)
            ]
        )
    return Pictures(pixels, mean=image.mean, std=image.std, device=device)


def build_objective(
    config: ObjectiveConfig, encoder: nn.Module, pictures: Pictures, corpus: ImageCorpus, generator: torch.Generator
) -> Objective:
    """Make the loss of a kind of supervision, with fresh heads from torch's current generator.

    Raises:
        ValueError: the objective does not fit the encoder or the images, or there is none.
    """
    parts: dict[str, Any] = {"encoder": encoder, "pictures": pictures, "generator": generator}
    match config:
        case LanguageContrastiveConfig():
            kinds = torch.from_numpy(corpus.kind.astype(np.int64))
            return LanguageContrastive(**parts, config=config, captions=corpus.captions, kinds=kinds)
        case TwoViewConfig():
            return TwoView(**parts, config=config)
        case MaskedAutoencoderConfig():
            return MaskedAutoencoder(**parts, config=config)
        case JointEmbeddingConfig():
            return JointEmbedding(**parts, config=config)
        case SegmentationConfig():
            classes = torch.from_numpy(corpus.segmentation)
            return Segmentation(**parts, target_stride=config.target_stride, classes=classes)
        case DepthConfig():
            depth = torch.from_numpy(corpus.depth)
            return Depth(**parts, target_stride=config.target_stride, depth=depth)
        case ClassLabelsConfig():
            return ClassLabels(**parts, labels=torch.from_numpy(corpus.labels))
        case DiffusionConfig():
            return Diffusion(**parts, max_noise=config.max_noise)
        case NoObjectiveConfig():
            raise ValueError("an encoder without an objective is not trained")


def _optimize(objective: Objective, config: ObjectiveConfig, name: str) -> None:
    assert not isinstance(config, NoObjectiveConfig)
    heads = [parameter for head in objective.heads() for parameter in head.parameters()]
    optimization = Optimization([objective], config.optimization, heads=heads)
    batches = objective.iter_batches(config.optimization)
    with logged_step(f"trained {name}") as facts:
        loss = torch.tensor(float("nan"))
        for _ in iter_progress(range(config.optimization.num_steps), total=config.optimization.num_steps, what=name):
            loss = objective(next(batches))
            optimization.step(loss)
            objective.after_step()
        facts["loss"] = f"{loss.item():.3f}"
