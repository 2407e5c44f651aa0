from __future__ import annotations

import pytest
import torch
from torch import nn

from cambrian.backbones.corpora import Document
from cambrian.backbones.documents import collate_documents, embed_documents, encode_document, iter_batches
from cambrian.backbones.tokenizer import token_ids
from cambrian.data.conversation import TURNS as TEMPLATE
from cambrian.data.tokenizer import Tokenizer
from cambrian.interfaces import IGNORE_LABEL, IMAGE_TOKEN_ID, Turn

IDS = token_ids(["ball", "blue", "cube", "red", "what"])
TURNS = (Turn("human", "what cube"), Turn("gpt", "red"), Turn("human", "what"), Turn("gpt", "blue ball"))
SEEN = Document((("red", "cube"), (), ("blue", "ball")), TURNS)
UNSEEN = Document((), TURNS[:2])


def words(ids: list[int]) -> str:
    name = {number: word for word, number in IDS.items()} | {IGNORE_LABEL: "-"}
    return " ".join(name[number] for number in ids)


def test_phrases_stand_after_the_first_user_and_only_answers_are_learned() -> None:
    encoded = encode_document(SEEN, IDS, reading=False)
    assert words(encoded.input_ids) == ("<user> <pad> <pad> <pad> what cube red <end> <user> what blue ball <end>")
    assert words(encoded.labels) == "- - - - - - red <end> - - blue ball <end>"


def test_reading_learns_every_word_but_the_openings() -> None:
    assert words(encode_document(UNSEEN, IDS, reading=True).labels) == "- what cube red <end>"


def test_layout_is_that_of_training_conversations(corpora, tmp_path) -> None:  # type: ignore[no-untyped-def]
    from tokenizers import Tokenizer as Backend

    from cambrian.backbones.tokenizer import write_tokenizer

    write_tokenizer(tmp_path, ["ball", "blue", "cube", "red", "what"], max_num_tokens=64)
    tokenizer = Tokenizer(Backend.from_file(str(tmp_path / "tokenizer.json")), pad_token="<pad>", end_token="<end>")
    turns = (Turn("human", "<image>\nwhat cube"), *TURNS[1:])
    expected = TEMPLATE.encode_conversation(turns, tokenizer, 3)
    found = encode_document(SEEN, IDS, reading=False)
    assert [IDS["<pad>"] if i == IMAGE_TOKEN_ID else i for i in expected.input_ids] == found.input_ids
    assert expected.labels == found.labels


def test_a_word_outside_the_vocabulary_is_named() -> None:
    with pytest.raises(ValueError, match="'sphere' is not in the vocabulary of 9 words"):
        encode_document(Document((("sphere",),), TURNS), IDS, reading=False)


def test_a_phrase_position_is_the_sum_of_its_words() -> None:
    embedding = nn.Embedding(len(IDS), 4)
    batch = collate_documents([encode_document(d, IDS, reading=False) for d in (UNSEEN, SEEN)], pad_id=IDS["<pad>"])
    embedded = embed_documents(batch, embedding)
    table = embedding.weight
    torch.testing.assert_close(embedded[1, 1], table[IDS["red"]] + table[IDS["cube"]])
    assert not embedded[1, 2].any()
    torch.testing.assert_close(embedded[1, 3], table[IDS["blue"]] + table[IDS["ball"]])
    torch.testing.assert_close(embedded[0], table[batch.input_ids[0]])


def test_padding_stands_on_the_right_and_is_not_learned() -> None:
    batch = collate_documents([encode_document(d, IDS, reading=True) for d in (UNSEEN, SEEN)], pad_id=IDS["<pad>"])
    short = len(encode_document(UNSEEN, IDS, reading=True).input_ids)
    assert (batch.input_ids[0, short:] == IDS["<pad>"]).all()
    assert (batch.labels[0, short:] == IGNORE_LABEL).all()


def test_documents_without_phrases_make_a_batch() -> None:
    batch = collate_documents([encode_document(UNSEEN, IDS, reading=False)] * 2, pad_id=IDS["<pad>"])
    assert embed_documents(batch, nn.Embedding(len(IDS), 4)).shape == (2, 5, 4)


def test_an_epoch_has_every_document_once() -> None:
    documents = [encode_document(d, IDS, reading=False) for d in (SEEN, UNSEEN)] * 6
    batches = iter_batches(documents, 4, pad_id=IDS["<pad>"], generator=torch.Generator().manual_seed(0))
    lengths = sorted(int((row != IDS["<pad>"]).sum()) for _ in range(3) for row in next(batches).input_ids)
    assert lengths == [5] * 6 + [10] * 6


def test_too_few_documents_for_a_batch_are_refused() -> None:
    with pytest.raises(ValueError, match="1 documents do not fill one batch of 4"):
        next(iter_batches([encode_document(SEEN, IDS, reading=False)], 4, pad_id=0, generator=torch.Generator()))
