from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from fastapi.testclient import TestClient
from tokenizers import Tokenizer as Backend
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from cambrian.browse.records import RecordBrowser
from cambrian.browse.server import build_app
from cambrian.browse.terminal import find_place
from cambrian.browse.tokens import TrainingView, count_positions, read_view
from cambrian.cli import main
from cambrian.data.conversation import TURNS
from cambrian.data.tokenizer import Tokenizer
from cambrian.interfaces import IGNORE_LABEL, IMAGE_TOKEN_ID, ArtifactError, ParamsError
from cambrian.models.config import MLPConfig, ResamplerConfig
from cambrian.models.connector import TokenLayout
from cambrian.params import ParamsFiles
from cambrian.training.samples import Samples
from tests.data.pools import picture

if TYPE_CHECKING:
    from pathlib import Path

SPECIAL = ["<pad>", "<unk>", "<user>", "<end>"]
WORDS = [*SPECIAL, "what", "is", "it", "?", "a", "cube", "how", "tall", "one", "and", "two", "yes"]


def make_tokenizer() -> Tokenizer:
    backend = Backend(WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    backend.pre_tokenizer = WhitespaceSplit()
    backend.add_special_tokens(SPECIAL)
    return Tokenizer(backend, pad_token="<pad>", end_token="<end>")


def make_view(**changes: Any) -> TrainingView:
    facts = {"name": "runs.test", "num_image_positions": 4, "max_length": 100, "use_images": True, **changes}
    return TrainingView(tokenizer=make_tokenizer(), template=TURNS, **facts)


@pytest.fixture
def records(clean: Path, pool: Path) -> RecordBrowser:
    return RecordBrowser(clean, pool)


@pytest.fixture
def client(records: RecordBrowser) -> TestClient:
    app = build_app(records, make_view(), fault="", name="clean/instruction", host="127.0.0.1")
    return TestClient(app, base_url="http://127.0.0.1")


def test_the_page_loads_nothing_but_itself(client: TestClient) -> None:
    page = client.get("/")
    assert page.status_code == 200
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert not re.search(r"(?:src|href)=[\"']?(?:https?:)?//", page.text)


def test_the_page_gets_facts_lists_records_and_pictures(client: TestClient) -> None:
    facts = client.get("/facts").json()
    assert (facts["rows"], facts["view"]) == (6, "runs.test")
    listed = client.get("/records", params={"category": "OCR", "reason": "kept"}).json()
    assert (listed["total"], listed["rows"][0]["id"]) == (1, "b")
    number = listed["rows"][0]["number"]
    record = client.get(f"/records/{number}").json()
    assert record["turns"][1] == {"speaker": "gpt", "text": "a cube"}
    image = client.get(f"/images/{number}")
    assert (image.headers["content-type"], image.content) == ("image/png", picture(1))


def test_a_row_that_is_not_there_is_a_clear_answer(client: TestClient) -> None:
    for path in ("/records/99", "/images/99", "/images/2"):
        answer = client.get(path)
        assert answer.status_code == 404
        assert "row" in answer.json()["error"]


def test_another_host_name_is_refused(client: TestClient) -> None:
    assert client.get("/facts", headers={"Host": "elsewhere.example"}).status_code == 400


@pytest.mark.parametrize("use_images", [True, False])
@pytest.mark.parametrize("max_length", [100, 17])
def test_tokens_and_mask_are_those_of_training(records: RecordBrowser, max_length: int, use_images: bool) -> None:
    view = make_view(max_length=max_length, use_images=use_images)
    kept = [
        records.show(number).record for number in records.select(source=None, category=None, reason="kept", text="")
    ]
    shown = [record for record in kept if record is not None]
    samples = Samples(
        shown,
        records.read_image,
        specs=[],
        num_image_positions=view.num_image_positions,
        template=view.template,
        tokenizer=view.tokenizer,
        use_images=use_images,
        max_length=max_length,
        max_unusable_share=1.0,
        image_cache_mib=0,
        num_workers=0,
        features=None,
    )
    for number, record in enumerate(shown):
        batch = samples.read_batch([number])
        assert batch is not None
        groups = view.describe(record)
        ids = [i for group in groups if group["kind"] != "cut" for i in group["ids"]]
        learned = [i for group in groups for i in (group["ids"] if group["kind"] == "learned" else [])]
        assert ids == batch.input_ids[0].tolist()
        assert learned == [label for label in batch.labels[0].tolist() if label != IGNORE_LABEL]
        assert sum(group["kind"] == "image" for group in groups) == (use_images and record.image is not None)
        assert all((group["kind"] == "image") == (set(group["ids"]) == {IMAGE_TOKEN_ID}) for group in groups)


def test_a_record_that_training_leaves_out_says_why(records: RecordBrowser) -> None:
    app = build_app(records, make_view(max_length=3), fault="", name="x", host="127.0.0.1")
    record = TestClient(app, base_url="http://127.0.0.1").get("/records/0").json()
    assert record["tokens"] == []
    assert "training leaves it out (too-long)" in record["token_fault"]


def test_a_place_is_a_mix_or_a_clean_pool_before_a_raw_one(clean: Path, pool: Path) -> None:
    files = ParamsFiles()
    data = clean.parent.parent
    assert find_place(files, data, "instruction").folder == clean
    assert find_place(files, data, str(pool)).folder == pool
    (data / "mixes" / "instruct-737k").mkdir(parents=True)
    place = find_place(files, data, "instruct-737k")
    assert (place.mix, place.pool) == ("instruct-737k", "instruction")
    with pytest.raises(ArtifactError, match="name one of instruct-737k, instruction"):
        find_place(files, data, "zebra")


def test_a_row_of_params_says_how_its_conversations_are_encoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cambrian.browse import tokens

    monkeypatch.setattr(tokens, "read_tokenizer", lambda folder: folder)
    view = read_view(ParamsFiles(), mix="instruct-737k", pool="instruction", run="cambrian-8b", backbones=tmp_path)
    assert view.name == "runs.cambrian-8b"
    assert view.tokenizer == tmp_path / "llama-3-8b"  # type: ignore[comparison-overlap]
    assert read_view(ParamsFiles(), mix=None, pool="alignment", run=None, backbones=tmp_path).name.startswith(
        "adapters."
    )
    with pytest.raises(ParamsError, match="neither a run nor an adapter"):
        read_view(ParamsFiles(), mix=None, pool="instruction", run="zebra", backbones=tmp_path)


def test_positions_of_a_picture_are_those_of_the_model() -> None:
    layout = {"position_rms": None, "output_rms": None}
    for newline in (True, False):
        grid = MLPConfig(
            kind="mlp", delivery="interpolate", hidden_ratio=1.0, side=3, newline=newline, hide_padding=False, **layout
        )
        assert count_positions(grid) == TokenLayout(grid, num_tokens=9, dim=1).num_positions
    queries = ResamplerConfig(kind="resampler", num_queries=5, depth=1, dim=8, num_heads=1, max_input_side=4, **layout)
    assert count_positions(queries) == TokenLayout(queries, num_tokens=5, dim=1).num_positions


def test_the_command_opens_the_page_of_what_it_found(clean: Path, pool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cambrian.browse import server

    served: dict[str, Any] = {}
    monkeypatch.setattr(server, "serve", lambda records, view, **facts: served.update(facts, rows=records.num_rows))
    main(["data", "browse", "--data", str(clean.parent.parent), "--backbones", "nowhere", "--port", "0"])
    assert served["rows"] == 6
    assert "tokenizer.json is missing" in served["fault"]
    assert served["name"] == str(clean)
