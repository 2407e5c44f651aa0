"""The benchmark's curation in other engines: the same rules as queries of DuckDB and of Daft.

What they are spared: a reason for every line that they leave out, the ledger, the clean pool as a file of its own, and
looking again at records whose 64-bit keys are equal. Where a record ranks among others comes from XXH3 as it does here,
in Daft by its own function, in DuckDB by a function on Arrow arrays.
"""

from __future__ import annotations

import json
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from cambrian.data.image_facts import describe_image
from cambrian.data.mixes import divide_total, rank_keys
from cambrian.data.records import records_schema
from cambrian.data.shards import ImageStore
from cambrian.interfaces import RecordError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cambrian.data.mixes import SelectRatio

MEMORY_LIMIT = "4GB"

_USABLE = """
    create temp table usable as
    with lines as (
        select
            id, source, image, conversations, [turn.value for turn in conversations] as texts,
            array_to_string([turn."from" for turn in conversations], ' ') as speakers
        from read_json($lines, format = 'newline_delimited', ignore_errors = true, columns = {
            id: 'VARCHAR', source: 'VARCHAR', image: 'VARCHAR',
            conversations: 'STRUCT("from" VARCHAR, "value" VARCHAR)[]'})
        where id is not null and len(conversations) > 0
    ), joined as (
        select *, array_to_string(texts, chr(1)) as words from lines
        where not list_contains([text is null or trim(text) = '' for text in texts], true)
        and speakers = rtrim(repeat('human gpt ', len(texts) // 2)) and len(texts) % 2 = 0
    )
    select
        id, source, category, joined.image as image, conversations,
        hash(coalesce(digest, ''), words) as content,
        hash(coalesce(hash, ''), regexp_replace(lower(words), '[ \\t\\n]+', '', 'g')) as likeness
    from joined join sources using (source) left join pictures on joined.image = pictures.image
    where (length(words) - length(replace(words, '<image>', ''))) // 7 = (joined.image is not null)::int
    and (joined.image is null or digest is not null)
"""
_SELECTED = """
    with by_id as (select * from usable qualify row_number() over (partition by id order by source) = 1),
    exact as (select * from by_id qualify row_number() over (partition by content order by id) = 1),
    near as (select * from exact qualify row_number() over (partition by likeness order by id) = 1),
    ranked as (select *, rank_of(id, 'select') as place from near),
    capped as (select * from ranked qualify row_number() over (partition by source order by place, id) <= $cap),
    taken as (
        select capped.* from capped join amounts using (category)
        qualify row_number() over (partition by category order by place, id) <= any_value(amount)
            over (partition by category)
    )
    select id, source, category, image, conversations from taken order by rank_of(id, 'order'), id
"""


def curate_with_duckdb(pool: Path, output: Path, select: SelectRatio, settings: dict[str, int]) -> None:
    """Write the mix of a pool as Parquet."""
    duckdb: Any = import_module("duckdb")
    connection = duckdb.connect(config={"threads": settings["num_processes"], "memory_limit": MEMORY_LIMIT})
    connection.execute("set preserve_insertion_order = false")
    connection.execute(f"set temp_directory = '{output.parent / 'spilled'}'")

    def rank_of(ids: pa.ChunkedArray, purposes: pa.ChunkedArray) -> pa.Array:
        purpose = purposes[0].as_py() if len(purposes) else ""
        return pa.array(rank_keys(ids.to_pylist(), settings["seed"], purpose))

    connection.create_function("rank_of", rank_of, ["VARCHAR", "VARCHAR"], "UBIGINT", type="arrow")
    connection.register("sources", read_sources(pool))
    connection.register("pictures", describe_pictures(pool, settings))
    connection.register("amounts", pa.table(dict(zip(("category", "amount"), list_amounts(select), strict=True))))
    connection.execute(_USABLE, {"lines": str(pool / "records.jsonl")})
    connection.execute(
        f"copy ({_SELECTED}) to '{output}' (format parquet, compression zstd)", {"cap": select.max_per_source}
    )


def curate_with_daft(pool: Path, output: Path, select: SelectRatio, settings: dict[str, int]) -> None:
    """Write the mix of a pool as Parquet files of a folder, whose names are in the order of their rows."""
    daft: Any = import_module("daft")
    functions: Any = import_module("daft.functions")
    col, lit, element, kinds = daft.col, daft.lit, daft.element, daft.DataType
    concat, row_number = functions.concat, functions.row_number
    daft.set_runner_native(num_threads=settings["num_processes"])
    text = kinds.string()
    turn = kinds.struct({"from": text, "value": text})
    line = kinds.struct({"id": text, "source": text, "image": text, "conversations": kinds.list(turn)})
    read = daft.read_text(str(pool / "records.jsonl")).select(col("text").try_deserialize("json", line).alias("line"))
    read = read.where(col("line").not_null()).select(
        *(col("line").get(name) for name in ("id", "source", "image", "conversations"))
    )

    def rank_of(purpose: str) -> Any:
        return concat(lit(f"{settings['seed']}/{purpose}/"), col("id")).hash(hash_function="xxhash3_64")

    def first_of(frame: Any, key: str, order: str) -> Any:
        window = daft.Window().partition_by(key).order_by(order)
        return frame.with_column("number", row_number().over(window)).where(col("number") == 1)

    turns = col("conversations")
    # In two steps: with both lists made in one, Daft 0.7.26 panics (offsets of the one, values of the other).
    usable = read.where(col("id").not_null() & (turns.list_count() > 0))
    usable = usable.with_column("words", turns.list_map(element().get("value")).list_join("\x01"))
    usable = usable.with_column("speakers", turns.list_map(element().get("from")).list_join(" "))
    usable = usable.where(
        col("speakers").regexp("^human gpt( human gpt)*$") & ~col("words").regexp("(^|\x01)\\s*(\x01|$)")
    )
    usable = usable.where(col("words").count_matches("<image>") == col("image").not_null().cast(kinds.uint64()))
    usable = usable.join(daft.from_arrow(read_sources(pool)), on="source")
    usable = usable.join(daft.from_arrow(describe_pictures(pool, settings)), on="image", how="left")
    usable = usable.where(col("image").is_null() | col("digest").not_null())
    squeezed = col("words").lower().regexp_replace("[ \\t\\n]+", "")
    usable = usable.select(
        "id", "source", "category", "image", "conversations", rank_of("select").alias("place"),
        concat(col("digest").fill_null(""), col("words")).hash(hash_function="xxhash3_64").alias("content"),
        concat(col("hash").fill_null(""), squeezed).hash(hash_function="xxhash3_64").alias("likeness"),
    )  # fmt: skip
    unique = first_of(first_of(first_of(usable, "id", "source"), "content", "id"), "likeness", "id")
    by_source = daft.Window().partition_by("source").order_by("place", "id")
    by_category = daft.Window().partition_by("category").order_by("place", "id")
    capped = unique.with_column("number", row_number().over(by_source)).where(col("number") <= select.max_per_source)
    amounts = daft.from_pydict(dict(zip(("category", "amount"), list_amounts(select), strict=True)))
    taken = capped.join(amounts, on="category").with_column("number", row_number().over(by_category))
    taken = taken.where(col("number") <= col("amount")).with_column("order", rank_of("order")).sort(["order", "id"])
    taken.select(*records_schema().names).write_parquet(str(output), compression="zstd", write_mode="overwrite")


def read_sources(pool: Path) -> pa.Table:
    """Source and category."""
    sources = json.loads((pool / "sources.json").read_text(encoding="utf-8"))
    return pa.table({"source": list(sources), "category": [facts["category"] for facts in sources.values()]})


def describe_pictures(pool: Path, settings: dict[str, int]) -> pa.Table:
    """Name, digest and difference hash (as hexadecimal text) of the pictures that can be used."""
    store = ImageStore(pool)
    rows = []
    for name in json.loads((pool / "images.json").read_text(encoding="utf-8")):
        try:
            facts = describe_image(
                store.read(name), name=name, hash_side=settings["hash_side"], min_side=settings["min_side"]
            )
        except RecordError:
            continue
        rows.append({"image": name, "digest": facts.digest, "hash": facts.hash.hex()})
    return pa.Table.from_pylist(rows)


def list_amounts(select: SelectRatio) -> tuple[Sequence[str], Sequence[int]]:
    """The categories, and how many records the mix takes of each."""
    amounts = divide_total(select.total, select.percent)
    return list(amounts), list(amounts.values())


def read_mix(path: Path) -> pa.Table:
    """What an engine wrote, with the columns' types of a file of records."""
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    return (
        pa.concat_tables([pq.read_table(file) for file in files]).select(records_schema().names).cast(records_schema())
    )
