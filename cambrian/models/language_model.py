"""Language models: transformers' own classes, unmodified, read from ordinary checkpoint folders."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import nn

from cambrian.artifacts import read_json
from cambrian.interfaces import ArtifactError
from cambrian.models.tensor_files import TensorFile, load_tensors, read_tensors, unique_tensors
from cambrian.models.torchvision_shim import declare_missing_operators
from cambrian.params import look_up

_CLASSES = {
    "llama": ("transformers.models.llama", "LlamaConfig", "LlamaForCausalLM"),  # Llama 3, Vicuna, Yi
    "mistral": ("transformers.models.mistral", "MistralConfig", "MistralForCausalLM"),
    "phi3": ("transformers.models.phi3", "Phi3Config", "Phi3ForCausalLM"),
    "qwen2": ("transformers.models.qwen2", "Qwen2Config", "Qwen2ForCausalLM"),
    "qwen3": ("transformers.models.qwen3", "Qwen3Config", "Qwen3ForCausalLM"),
}
"""By `model_type`: the module, and its classes of configuration and model. Only a model's own family is imported.

The decoder layers of all of them hand unknown arguments on, as aggregators inside the LLM need.
"""


_REFUSALS = (TypeError, KeyError, ZeroDivisionError, AssertionError, RuntimeError)
"""What transformers raises where values do not fit each other."""


def read_language_model(folder: Path) -> nn.Module:
    """Read a transformers folder (`config.json`, `model.safetensors`) as its `...ForCausalLM`.

    Raises:
        ArtifactError: the folder is incomplete, its model type is unknown, or a tensor is missing, left over or of
            another shape.
    """
    model = _build_from(folder)
    load_tensors(unique_tensors(model), read_tensors(folder / "model.safetensors"), where=folder / "model.safetensors")
    return model.eval()


def outline_language_model(folder: Path) -> nn.Module:
    """Return what `read_language_model` does without its weights, whose names and shapes are checked.

    Parameters are on the meta device; buffers, which no file holds, have their values.

    Raises:
        ArtifactError: as `read_language_model`.
    """
    with _parameters_on_meta():
        model = _build_from(folder)
    TensorFile(folder / "model.safetensors").check(unique_tensors(model))
    return model.eval()


def _build_from(folder: Path) -> nn.Module:
    path = folder / "config.json"
    try:
        return build_language_model(read_json(path))
    except ValueError as error:
        raise ArtifactError(f"{path}: {error}") from error


@contextmanager
def _parameters_on_meta() -> Iterator[None]:
    """Let modules that are built meanwhile keep no memory for their parameters.

    The block `with torch.device("meta")` would take the buffers' values too, which constructors compute.
    """
    register = nn.Module.register_parameter

    def register_on_meta(self: nn.Module, name: str, param: nn.Parameter | None) -> None:
        if param is not None and not param.is_meta:  # tied weights stay one object
            param = nn.Parameter(param.to("meta"), param.requires_grad)
        register(self, name, param)

    nn.Module.register_parameter = register_on_meta  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]


def parse_language_model(values: Mapping[str, Any]) -> Any:
    """Return transformers' configuration of an LLM from what its `config.json` holds.

    Raises:
        ValueError: the model type is unknown, or transformers refuses a value.
    """
    return _parse(values)[0]


def build_language_model(values: Mapping[str, Any]) -> nn.Module:
    """Build the LLM that a `config.json` describes with fresh weights, on torch's current device.

    Raises:
        ValueError: as `parse_language_model`; also where sizes do not fit each other.
    """
    config, build = _parse(values)
    try:
        model: nn.Module = build(config)
    except _REFUSALS as error:
        raise ValueError(f"it describes no LLM that transformers can build ({error})") from error
    return model


def _parse(values: Mapping[str, Any]) -> tuple[Any, Any]:
    """The configuration, and the class of the model that it is for."""
    names = look_up(_CLASSES, values.get("model_type", ""), where="model_type")
    module_name, config_name, model_name = names
    declare_missing_operators()
    modeling = import_module(f"{module_name}.modeling_{module_name.rsplit('.', 1)[-1]}")
    try:
        return getattr(modeling, config_name).from_dict(dict(values)), getattr(modeling, model_name)
    except _REFUSALS as error:
        raise ValueError(f"it describes no LLM that transformers can build ({error})") from error
