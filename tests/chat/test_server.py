import base64
import re
import socket
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from cambrian.chat import server
from cambrian.chat.server import build_app, serve
from cambrian.chat.talker import Talker
from cambrian.interfaces import ArtifactError
from tests.chat.conftest import png

PAGE = (Path(server.__file__).parent / "page.html").read_text(encoding="utf-8")


def connect(talker: Talker, host: str = "127.0.0.1") -> TestClient:
    return TestClient(build_app(talker, host=host, max_new_tokens=5), base_url="http://127.0.0.1:8000")


@pytest.fixture
def client(talker: Talker) -> TestClient:
    return connect(talker)


def question(text: str = "what colour is it", *pictures: bytes, **changes: Any) -> dict[str, Any]:
    images = [base64.b64encode(picture).decode() for picture in pictures]
    return {"images": images, "exchanges": [], "question": text, **changes}


def test_an_answer_comes_with_the_shares_of_every_layer_and_cell(client: TestClient, talker: Talker) -> None:
    found = client.post("/answers", json=question("what colour is it", png(9, 9), png(40, 4))).json()
    expected = talker.answer([png(9, 9), png(40, 4)], [], "what colour is it", max_new_tokens=5)
    assert found["text"] == expected.text
    assert [layer["name"] for layer in found["layers"]] == [layer.name for layer in expected.layers]
    for found_rows, rows in zip(found["layers"][0]["shares"][0], expected.layers[0].shares[0].tolist(), strict=True):
        shares = [share for row in rows for share in row]
        assert [share for row in found_rows for share in row] == pytest.approx(shares, abs=1e-4)
    hidden = [share for row in found["layers"][0]["shares"][1][0] for share in row if share is None]
    assert len(hidden) == int(expected.layers[0].shares[1, 0].isnan().sum())
    assert found["layers"][0]["means"] == pytest.approx(expected.layers[0].means().numpy())


def test_earlier_exchanges_are_part_of_the_question(client: TestClient, talker: Talker) -> None:
    past = [{"question": "which", "answer": "blue blue blue"}]
    alone = client.post("/answers", json=question("what colour is it", png(9, 9))).json()["text"]
    after = client.post("/answers", json=question("what colour is it", png(9, 9), exchanges=past)).json()["text"]
    assert after != alone


def test_the_page_is_told_whether_there_is_attention_to_draw(talker: Talker, talker_without_sva: Talker) -> None:
    described = connect(talker).get("/model").json()
    assert described == {
        "name": "sva-in-llm",
        "encoders": ["vit", "convnet"],
        "llm": "llm",
        "has_shares": True,
        "max_request_bytes": server.MAX_REQUEST_BYTES,
    }
    assert not connect(talker_without_sva).get("/model").json()["has_shares"]


def test_the_page_loads_nothing_from_elsewhere_and_is_told_so(client: TestClient) -> None:
    response = client.get("/")
    assert response.text == PAGE
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert not re.findall(r"""(?:src|href)\s*=\s*["']|url\(|@import|https?://""", PAGE)
    assert not re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", PAGE)


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (question("what elephant"), 422, "'elephant' in 'what elephant' is not among"),
        (question("<image> <image> what", png(4, 4)), 422, "has 2 <image>, the number of images is 1"),
        (question(" "), 422, "the question is empty"),
        (question("what", b"no picture"), 422, "10 bytes cannot be decoded"),
        ({**question("what"), "images": ["%%%"]}, 422, "a picture is not base64"),
        ({**question("what"), "path": "/etc/passwd"}, 422, "is not a question"),
        ({"question": "what"}, 422, "is not a question"),
        ({**question("what"), "exchanges": [{"question": 5, "answer": "a"}]}, 422, "is not a question"),
    ],
)
def test_what_cannot_be_answered_is_told_in_one_line(
    client: TestClient, body: dict[str, Any], status: int, message: str
) -> None:
    response = client.post("/answers", json=body)
    assert response.status_code == status
    assert message in response.json()["error"]
    assert client.post("/answers", json=question("what")).status_code == 200


def test_a_picture_is_sent_and_never_named_by_a_path(client: TestClient, tmp_path: Path) -> None:
    path = tmp_path / "secret.png"
    path.write_bytes(png(4, 4))
    response = client.post("/answers", json={**question("what"), "images": [str(path)]})
    assert response.status_code == 422


def test_a_request_past_the_limit_is_refused_while_it_arrives(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MAX_REQUEST_BYTES", 1 << 20)
    taken = 0

    def chunks() -> Any:
        nonlocal taken
        for _ in range(64):
            taken += 1
            yield b" " * (1 << 16)

    response = client.post("/answers", content=chunks(), headers={"content-type": "application/json"})
    assert response.status_code == 413
    assert response.json()["error"] == "the pictures are larger than 1 MiB together: scale them down"


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_what_a_foreign_page_can_send_without_asking_is_refused(client: TestClient, kind: str) -> None:
    response = client.post("/answers", content=b"{}", headers={"content-type": kind})
    assert response.status_code == 415


@pytest.mark.parametrize(
    ("host", "asked", "status"),
    [("127.0.0.1", "localhost", 200), ("127.0.0.1", "evil.example", 400), ("0.0.0.0", "box.example", 200)],
)
def test_the_page_answers_to_the_names_of_its_host_only(talker: Talker, host: str, asked: str, status: int) -> None:
    assert connect(talker, host).get("/model", headers={"host": asked}).status_code == status


@pytest.mark.parametrize("path", ["/docs", "/openapi.json", "/page.html", "/../server.py"])
def test_nothing_else_is_served(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_a_port_that_is_taken_is_named(talker: Talker) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ArtifactError, match=rf"127.0.0.1:{port} cannot be served .*: choose another --port"):
            serve(talker, host="127.0.0.1", port=port, max_new_tokens=1)
