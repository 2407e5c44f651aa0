"""Language models: transformers' own classes, unmodified, read from ordinary checkpoint folders."""

from importlib import import_module
from pathlib import Path

from torch import nn

from cambrian.artifacts import read_json
from cambrian.interfaces import ArtifactError
from cambrian.models.tensor_files import load_tensors, read_tensors, unique_tensors
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


def read_language_model(folder: Path) -> nn.Module:
    """Read a transformers folder (`config.json`, `model.safetensors`) as its `...ForCausalLM`.

    Raises:
        ArtifactError: the folder is incomplete, its model type is unknown, or a tensor is missing, left over or of
            another shape.
    """
    values = read_json(folder / "config.json")
    try:
        module_name, config_name, model_name = look_up(
            _CLASSES, values.get("model_type", ""), where=f"{folder / 'config.json'}: model_type"
        )
    except ValueError as error:
        raise ArtifactError(str(error)) from error
    declare_missing_operators()
    modeling = import_module(f"{module_name}.modeling_{module_name.rsplit('.', 1)[-1]}")
    config = getattr(modeling, config_name).from_dict(values)
    model: nn.Module = getattr(modeling, model_name)(config)
    load_tensors(unique_tensors(model), read_tensors(folder / "model.safetensors"), where=folder / "model.safetensors")
    return model.eval()
