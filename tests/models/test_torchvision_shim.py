import subprocess
import sys

from cambrian.models.torchvision_shim import declare_missing_operators


def test_timm_and_transformers_import_after_the_declaration() -> None:
    declare_missing_operators()
    import timm
    from transformers.models.llama.modeling_llama import LlamaForCausalLM

    assert timm.is_model("vit_tiny_patch16_224")
    assert LlamaForCausalLM.__name__ == "LlamaForCausalLM"


def test_declaring_twice_does_nothing_the_second_time() -> None:
    assert declare_missing_operators() is declare_missing_operators()


def test_the_models_room_imports_neither_timm_nor_transformers_until_a_model_is_read() -> None:
    program = (
        "import sys, cambrian.models.weights, cambrian.models.generation;"
        "print([name for name in ('timm', 'torchvision', 'transformers') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
