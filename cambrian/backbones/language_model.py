"""Pretrains a small LLM on the text of the corpora (what Vicuna and Llama 3 bring along in the paper)."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from cambrian.backbones.config import LanguageModelShape, TrainedLanguageModel
from cambrian.backbones.corpora import Document, read_documents, read_vocabulary
from cambrian.backbones.documents import (
    DocumentBatch,
    EncodedDocument,
    embed_documents,
    encode_document,
    iter_batches,
)
from cambrian.backbones.optimization import Optimization
from cambrian.backbones.tokenizer import END, PAD, token_ids, write_tokenizer
from cambrian.interfaces import IGNORE_LABEL
from cambrian.models.tensor_files import unique_tensors, write_tensors
from cambrian.runtime import RuntimeConfig, generator_seed, iter_progress, logged_step

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM


def train_language_model(
    config: TrainedLanguageModel, *, corpora: Path, seed: int, name: str, runtime: RuntimeConfig, folder: Path
) -> None:
    """Train an LLM from nothing and write it as transformers' folder, its tokenizer beside it.

    Raises:
        ArtifactError: the corpora are not finished.
        ValueError: a document has a word outside the vocabulary, or is longer than the model allows.
    """
    vocabulary = read_vocabulary(corpora)
    ids = token_ids(vocabulary)
    generator = torch.Generator().manual_seed(generator_seed(seed, f"backbones.{name}.order"))
    documents = _encode(read_documents(corpora), ids, config, generator)
    model = build_language_model(config.shape, ids, seed=generator_seed(seed, f"backbones.{name}.weights"))
    model.to(runtime.device).train()
    optimization = Optimization(
        [model], config.optimization, heads=[model.get_input_embeddings().weight, model.get_output_embeddings().weight]
    )
    batches = iter_batches(documents, config.optimization.batch_size, pad_id=ids[PAD], generator=generator)
    with logged_step(f"pretrained {name}") as facts:
        loss = torch.tensor(float("nan"))
        for _ in iter_progress(range(config.optimization.num_steps), total=config.optimization.num_steps, what=name):
            loss = document_loss(model, next(batches).to(runtime.device))
            optimization.step(loss)
        facts["loss"] = f"{loss.item():.3f}"
    model.eval()
    model.config.save_pretrained(folder)
    write_tensors(folder / "model.safetensors", unique_tensors(model))
    write_tokenizer(folder, vocabulary, max_num_tokens=config.shape.max_num_tokens)


def build_language_model(shape: LanguageModelShape, ids: dict[str, int], *, seed: int) -> "LlamaForCausalLM":
    """Make the LLM with initial weights that depend on the seed alone."""
    from cambrian.models.torchvision_shim import declare_missing_operators

    declare_missing_operators()
    from transformers.models.llama.modeling_llama import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(ids),
        hidden_size=shape.hidden_dim,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_heads,
        intermediate_size=shape.feed_forward_dim,
        max_position_embeddings=shape.max_num_tokens,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
        initializer_range=shape.initializer_range,
        tie_word_embeddings=shape.tie_embeddings,
        pad_token_id=ids[PAD],
        bos_token_id=None,
        eos_token_id=ids[END],
        architectures=["LlamaForCausalLM"],
        use_cache=False,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
        for layer in model.model.layers:
            torch.nn.init.normal_(layer.self_attn.q_proj.weight, std=shape.query_key_std)
            layer.self_attn.k_proj.weight.data.copy_(layer.self_attn.q_proj.weight)
            torch.nn.init.normal_(layer.self_attn.v_proj.weight, std=shape.value_output_std)
            layer.self_attn.o_proj.weight.data.copy_(layer.self_attn.v_proj.weight.T)
    return model


def document_loss(model: "LlamaForCausalLM", batch: DocumentBatch) -> Float[Tensor, ""]:
    """Mean cross-entropy of the labelled words.

    No mask is needed: padding stands on the right, and a causal model does not look there.
    """
    embedded = embed_documents(batch, model.get_input_embeddings())
    hidden = model.model(inputs_embeds=embedded, use_cache=False).last_hidden_state[:, :-1]
    targets = batch.labels[:, 1:]
    is_learned = targets != IGNORE_LABEL
    return F.cross_entropy(model.get_output_embeddings()(hidden[is_learned]), targets[is_learned])


def _encode(
    documents: list[Document], ids: dict[str, int], config: TrainedLanguageModel, generator: torch.Generator
) -> list[EncodedDocument]:
    reading = (torch.rand(len(documents), generator=generator) < config.reading_share).tolist()
    encoded = [encode_document(d, ids, reading=r) for d, r in zip(documents, reading, strict=True)]
    longest = max(len(document.input_ids) for document in encoded)
    if longest > config.shape.max_num_tokens:
        raise ValueError(
            f"the longest document has {longest} tokens, max_num_tokens is {config.shape.max_num_tokens}: raise it"
        )
    return encoded
