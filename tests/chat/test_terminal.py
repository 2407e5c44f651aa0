import io
from pathlib import Path

import pytest

from cambrian.chat.dialogue import Exchange
from cambrian.chat.talker import Talker
from cambrian.cli import main
from tests.chat.conftest import png


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "red.png"
    path.write_bytes(png(9, 5))
    return path


@pytest.fixture
def model(scale: Path) -> str:
    return str(scale / "runs" / "sva-in-llm")


def say(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))


def test_a_prompt_is_answered_once(
    model: str, talker: Talker, picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["chat", "--model", model, "--image", str(picture), "--prompt", "which", "--max-new-tokens", "7"])
    expected = talker.answer([picture.read_bytes()], [], "which", max_new_tokens=7).text
    assert capsys.readouterr().out == f"{expected}\n"


def test_a_conversation_keeps_its_turns_until_it_begins_anew(
    model: str, talker: Talker, picture: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    say(monkeypatch, "what colour is it\nwhich\n/new\nwhich\n\nnever read\n")
    main(["chat", "--model", model, "--image", str(picture), "--max-new-tokens", "7"])
    data = [picture.read_bytes()]
    first = talker.answer(data, [], "what colour is it", max_new_tokens=7).text
    second = talker.answer(data, [Exchange("what colour is it", first)], "which", max_new_tokens=7).text
    anew = talker.answer(data, [], "which", max_new_tokens=7).text
    assert capsys.readouterr().out == f"{first}\n{second}\n{anew}\n"
    assert second != anew


def test_a_question_that_cannot_be_asked_does_not_end_the_conversation(
    model: str, talker: Talker, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    say(monkeypatch, "what elephant\nwhich")
    main(["chat", "--model", model, "--max-new-tokens", "7"])
    captured = capsys.readouterr()
    assert "'elephant' in 'what elephant' is not among" in captured.err
    assert captured.out == f"{talker.answer([], [], 'which', max_new_tokens=7).text}\n"


def test_shares_are_told_on_request(model: str, picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["chat", "--model", model, "--image", str(picture), "--prompt", "which", "--shares"])
    lines = capsys.readouterr().out.splitlines()[1:]
    assert len(lines) == 6
    assert lines[-1].startswith("in the LLM, after layer 3: vit ")
    for line in lines:
        shares = [float(word.rstrip("%,")) for word in line.partition(": ")[2].split() if "%" in word]
        assert sum(shares) == pytest.approx(100, abs=0.11)


def test_a_model_without_shares_says_so(scale: Path, picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["chat", "--model", str(scale / "runs" / "mlp"), "--image", str(picture), "--prompt", "which", "--shares"])
    assert "no spatial vision aggregator" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--image", "no-such.png", "--prompt", "which"], "--image no-such.png: No such file or directory"),
        (["--image", ".", "--prompt", "which"], "--image .: Is a directory"),
        (["--image", "{text}", "--prompt", "which"], "7 bytes cannot be decoded: no known picture format"),
        (["--prompt", "<image> which"], "the question has 1 <image>, the number of images is 0"),
        (["--prompt", ""], "the question is empty"),
        (["--prompt", "elephant"], "'elephant' in 'elephant' is not among the"),
        (["--device", "nowhere", "--prompt", "which"], "--device nowhere: "),
        (["--backbones", "no-such", "--prompt", "which"], "no-such/convnet has no manifest.json"),
        (["--serve", "--prompt", "which"], "--serve goes with neither --prompt nor --image"),
        (["--max-new-tokens", "0", "--prompt", "which"], "found '0', expected a whole number of at least 1"),
    ],
)
def test_a_fault_is_one_line_and_status_2(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    (tmp_path / "text.png").write_text("no png!")
    filled = [argument.format(text=tmp_path / "text.png") for argument in arguments]
    with pytest.raises(SystemExit) as end:
        main(["chat", "--model", model, *filled])
    captured = capsys.readouterr()
    assert end.value.code == 2
    assert captured.out == ""
    *_, line = captured.err.splitlines()
    assert message in line
    assert line.startswith("cambrian")


def test_a_picture_that_cannot_be_read_ends_a_conversation_at_its_first_question(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text.png").write_text("no png!")
    say(monkeypatch, "which\nwhich\n")
    with pytest.raises(SystemExit) as end:
        main(["chat", "--model", model, "--image", str(tmp_path / "text.png")])
    assert end.value.code == 2
