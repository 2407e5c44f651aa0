"""Documents as sequences: ids, labels and phrases, in the layout of the `turns` template.

A phrase document says in words what an image would show. Where the image would stand, right after the first `<user>`,
it has one position per visual token, and the embedding of that position is the *sum* of the embeddings of the words of
what lies in the token's cell (the zero vector for an empty cell). It is ours, not the paper's, and it is what makes a
language model this small usable: reading a question, finding the position that it means and saying one of its words is
learned here, from text, and a connector then only has to map features to sums of word embeddings. Without phrase
documents retrieval did not form at all in the same time.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from cambrian.backbones.corpora import Document
from cambrian.backbones.tokenizer import END, PAD, USER
from cambrian.interfaces import IGNORE_LABEL

_NUM_POOLED_BATCHES = 32
"""Batches are cut from so many at once, sorted by length, so that little of a batch is padding."""


@dataclass(frozen=True, slots=True)
class EncodedDocument:
    """One document; `phrases` are the ids of each phrase position, which stand at 1, 2, ... of `input_ids`."""

    input_ids: list[int]
    labels: list[int]
    phrases: list[list[int]]


@dataclass(frozen=True, slots=True)
class DocumentBatch:
    """Right-padded sequences; phrase words are listed flat, each with the row and the position it adds to."""

    input_ids: Int[Tensor, "batch length"]
    """The padding's id at phrase positions."""
    labels: Int[Tensor, "batch length"]
    """The id to be predicted *at* each position (not shifted)."""
    phrase_rows: Int[Tensor, " words"]
    phrase_positions: Int[Tensor, " words"]
    phrase_ids: Int[Tensor, " words"]
    is_phrase: Int[Tensor, "batch length"]

    def to(self, device: str) -> "DocumentBatch":
        """The same batch on a device."""
        return DocumentBatch(*(getattr(self, field.name).to(device) for field in fields(self)))


def encode_document(document: Document, ids: Mapping[str, int], *, reading: bool) -> EncodedDocument:
    """Encode one document; where `reading`, the loss is on every word, otherwise on the assistant's words and `<end>`.

    Raises:
        ValueError: a word is not in the vocabulary.
    """
    phrases = [_word_ids(words, ids) for words in document.phrases]
    input_ids: list[int] = []
    labels: list[int] = []
    for number, turn in enumerate(document.turns):
        is_answer = turn.speaker == "gpt"
        words = _word_ids(turn.text.split(), ids) + ([ids[END]] if is_answer else [])
        opening = [] if is_answer else [ids[USER]] + [ids[PAD]] * (len(phrases) if number == 0 else 0)
        input_ids += opening + words
        labels += [IGNORE_LABEL] * len(opening) + (words if is_answer or reading else [IGNORE_LABEL] * len(words))
    return EncodedDocument(input_ids, labels, phrases)


def collate_documents(sequences: Sequence[EncodedDocument], *, pad_id: int) -> DocumentBatch:
    """Pad sequences to the longest of them."""
    length = max(len(sequence.input_ids) for sequence in sequences)
    input_ids = torch.full((len(sequences), length), pad_id)
    labels = torch.full((len(sequences), length), IGNORE_LABEL)
    is_phrase = torch.zeros(len(sequences), length, dtype=torch.int64)
    words: list[tuple[int, int, int]] = []
    for row, sequence in enumerate(sequences):
        input_ids[row, : len(sequence.input_ids)] = torch.tensor(sequence.input_ids)
        labels[row, : len(sequence.labels)] = torch.tensor(sequence.labels)
        is_phrase[row, 1 : 1 + len(sequence.phrases)] = 1
        words += [(row, 1 + place, word) for place, phrase in enumerate(sequence.phrases) for word in phrase]
    rows, positions, ids = torch.tensor(words, dtype=torch.int64).reshape(-1, 3).unbind(1)
    return DocumentBatch(input_ids, labels, rows, positions, ids, is_phrase)


def embed_documents(batch: DocumentBatch, embedding: nn.Embedding) -> Float[Tensor, "batch length dim"]:
    """Embed ids; each phrase position becomes the sum of its words' embeddings."""
    embedded = embedding(batch.input_ids) * (1 - batch.is_phrase).unsqueeze(-1)
    places = batch.phrase_rows * batch.input_ids.shape[1] + batch.phrase_positions
    sums = torch.zeros_like(embedded).flatten(0, 1).index_add(0, places, embedding(batch.phrase_ids))
    whole: Tensor = embedded + sums.view_as(embedded)
    return whole


def iter_batches(
    sequences: Sequence[EncodedDocument], batch_size: int, *, pad_id: int, generator: torch.Generator
) -> Iterator[DocumentBatch]:
    """Yield batches of similar lengths without end, every epoch in another order.

    Raises:
        ValueError: there are fewer sequences than a batch holds.
    """
    if len(sequences) < batch_size:
        raise ValueError(f"{len(sequences)} documents do not fill one batch of {batch_size}: lower the batch size")
    lengths = torch.tensor([len(sequence.input_ids) for sequence in sequences])
    while True:
        order = torch.randperm(len(sequences), generator=generator)
        for pool in torch.split(order, batch_size * _NUM_POOLED_BATCHES):
            batches = torch.split(pool[lengths[pool].argsort(stable=True)], batch_size)
            full = [batch for batch in batches if len(batch) == batch_size]
            for index in torch.randperm(len(full), generator=generator).tolist():
                yield collate_documents([sequences[i] for i in full[index].tolist()], pad_id=pad_id)


def _word_ids(words: Sequence[str], ids: Mapping[str, int]) -> list[int]:
    missing = [word for word in words if word not in ids]
    if missing:
        raise ValueError(f"{missing[0]!r} is not in the vocabulary of {len(ids)} words: make the corpora again")
    return [ids[word] for word in words]
