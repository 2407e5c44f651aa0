"""The gate of a mix as a plain script does it: the whole mix as one pandas table, every picture's facts in a dict."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow.parquet as pq
from PIL import Image

from cambrian.data.duplicates import difference_hash
from cambrian.data.expectations import KNOWN_CATEGORIES
from cambrian.data.image_facts import describe_image
from cambrian.data.shards import ImageStore

if TYPE_CHECKING:
    from pathlib import Path

    from cambrian.data.expectations import ValidationConfig


def check(config: ValidationConfig, folder: Path) -> dict[str, bool]:
    """Which expectations the mix of everything in a folder meets, by name."""
    frame = pq.read_table(folder / "mix/records.parquet").to_pandas()
    sources = json.loads((folder / "pool/sources.json").read_text(encoding="utf-8"))
    ledger = json.loads((folder / "mix/ledger.json").read_text(encoding="utf-8"))
    store = ImageStore(folder / "pool")
    facts = {
        name: describe_image(store.read(name), name=name, hash_side=config.hash_side, min_side=config.min_image_side)
        for name in frame["image"].dropna().unique()
    }
    frame["digest"] = frame["image"].map(lambda name: facts[name].digest if name in facts else "")
    frame["hash"] = frame["image"].map(lambda name: facts[name].hash if name in facts else b"")
    frame["num_turns"] = frame["conversations"].map(len)
    turns = frame[["id", "digest", "conversations"]].explode("conversations", ignore_index=True)
    turns["speaker"] = turns["conversations"].map(lambda turn: turn["from"])
    turns["text"] = turns["conversations"].map(lambda turn: turn["value"])
    turns["expected"] = turns.groupby("id").cumcount().map(lambda place: ("human", "gpt")[place % 2])
    frame["words"] = frame["conversations"].map(lambda spoken: "\0".join(turn["value"] for turn in spoken))
    frame["squeezed"] = frame["conversations"].map(
        lambda spoken: "\0".join(" ".join(turn["value"].lower().split()) for turn in spoken)
    )
    lengths = turns["text"].str.replace("<image>", "", regex=False).str.strip().str.len()
    markers = frame["words"].str.count("<image>")
    first = frame["conversations"].map(lambda spoken: spoken[0]["from"])
    last = frame["conversations"].map(lambda spoken: spoken[-1]["from"])
    counts = frame["source"].value_counts()
    available = {part: described["available"] for part, described in ledger["parts"].items()}
    return {
        "the file has a mix's columns": list(frame.columns[:5])
        == ["id", "source", "category", "image", "conversations"],
        "ids are unique": bool(frame["id"].is_unique),
        "ids are there": bool(frame["id"].notna().all()),
        "categories are known": bool(frame["category"].isin(KNOWN_CATEGORIES).all()),
        "stored categories are those of the sources": bool(
            (frame["source"].map(lambda name: sources[name]["category"]) == frame["category"]).all()
        ),
        "conversations have turns": bool(frame["num_turns"].between(2, config.max_turns).all()),
        "a person speaks first": bool((first == "human").all()),
        "the model speaks last": bool((last == "gpt").all()),
        "speakers alternate": bool((turns["speaker"] == turns["expected"]).all()),
        "turns have text": bool(lengths.between(1, config.max_turn_characters).all()),
        "image markers match images": bool((markers == frame["image"].notna()).all()),
        "images can be read": True,  # describe_image would have raised
        "no sample is there twice": not frame.duplicated(["words", "digest"]).any(),
        "few near duplicates": bool(frame.duplicated(["squeezed", "hash"]).mean() <= config.max_near_duplicate_share),
        "few contradictions": share_contradicted(turns) <= config.max_contradicted_share,
        "no part is over its limit": all(counts.get(part, 0) <= limit for part, limit in available.items()),
        "parts are as large as asked and available": all(
            counts.get(part, 0) == limit for part, limit in available.items()
        ),
        "all records belong to a part": set(counts.index) <= set(available),
        "the ledger counts all records": len(frame) == ledger["steps"][-1]["out"],
        "the pool has what the mix asks for": True,  # a mix of everything asks for nothing else
        "few test images leaked": share_leaked(config, folder, {known.hash for known in facts.values()})
        <= config.max_leaked_share,
    }


def share_contradicted(turns: pd.DataFrame) -> float:
    """Records with an answer that others of the same question and picture speak against."""
    questions, answers = turns[turns["speaker"] == "human"], turns[turns["speaker"] == "gpt"]
    pairs = pd.DataFrame(
        {
            "id": questions["id"].to_numpy(),
            "digest": questions["digest"].to_numpy(),
            "asked": squeeze(questions["text"].str.replace("<image>", " ", regex=False)),
            "given": squeeze(answers["text"]),
        }
    ).drop_duplicates()
    asked = pairs.groupby(["digest", "asked"])
    num_ids = asked["id"].transform("nunique")
    num_answers = asked["given"].transform("nunique")
    agrees = 2 * pairs.groupby(["digest", "asked", "given"])["id"].transform("nunique") > num_ids
    has_majority = agrees.groupby([pairs["digest"], pairs["asked"]]).transform("any")
    is_spared = agrees.groupby([pairs["digest"], pairs["asked"], pairs["id"]]).transform("any")
    is_disputed = (num_answers > 1) & (has_majority | (pairs["digest"] != ""))
    return float(pairs["id"][is_disputed & ~is_spared].nunique() / turns["id"].nunique())


def squeeze(texts: pd.Series) -> list[str]:
    """The texts in small letters with single spaces."""
    return [" ".join(text.lower().split()) for text in texts]


def share_leaked(config: ValidationConfig, folder: Path, hashes: set[bytes]) -> float:
    """Test images that look like a training image."""
    images = pq.read_table(folder / "benchmarks/GQA/test.parquet").column("image").to_pylist()
    found = [difference_hash(Image.open(io.BytesIO(image["bytes"])), config.hash_side) in hashes for image in images]
    return sum(found) / len(found)
