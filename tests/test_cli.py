import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from cambrian import cli
from cambrian.cli import COMMANDS, main
from cambrian.interfaces import ArtifactError, ParamsError, RecordError


def install(monkeypatch: pytest.MonkeyPatch, run: Any) -> None:
    """Put a command in the place of `chat`."""
    module = SimpleNamespace(add_arguments=lambda parser: parser.add_argument("--number", type=int), run=run)
    monkeypatch.setattr(cli, "import_module", lambda _: module)


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert all(f"{name} {command.summary}" in text for name, command in COMMANDS.items())


def test_arguments_reach_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = []
    install(monkeypatch, lambda arguments: numbers.append(arguments.number))
    main(["chat", "--number", "3"])
    assert numbers == [3]


@pytest.mark.parametrize(
    "error", [ParamsError("found this,\n expected that"), ArtifactError("a fault"), RecordError("reason", "a fault")]
)
def test_a_foreseen_fault_is_one_line_and_status_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    def run(_: Any) -> None:
        raise error

    install(monkeypatch, run)
    with pytest.raises(SystemExit) as end:
        main(["chat"])
    assert end.value.code == 2
    assert capsys.readouterr().err == f"cambrian: {' '.join(str(error).split())}\n"


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(_: Any) -> None:
        raise ValueError("a bug")

    install(monkeypatch, run)
    with pytest.raises(ValueError, match="a bug"):
        main(["chat"])


def test_ctrl_c_ends_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(_: Any) -> None:
        raise KeyboardInterrupt

    install(monkeypatch, run)
    with pytest.raises(SystemExit) as end:
        main(["chat"])
    assert end.value.code == 130


@pytest.mark.parametrize("arguments", [[], ["sing"], ["--model", "chat"]])
def test_no_command_or_an_unknown_one_is_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert "usage: cambrian" in capsys.readouterr().err


def test_asking_for_help_loads_no_model_library() -> None:
    code = (
        "import sys\nfrom cambrian.cli import main\ntry:\n    main(['chat', '--help'])\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'PIL', 'numpy', 'fastapi', 'transformers'} & sys.modules.keys()))"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert found.splitlines()[-1] == "[]"
