from __future__ import annotations

import errno
import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cambrian.artifacts import read_json, read_manifest, write_folder, write_json
from cambrian.interfaces import ArtifactError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fail_while_writing(output: Path, fault: BaseException) -> None:
    with write_folder(output) as folder:
        (folder / "half").touch()
        raise fault


def test_a_finished_folder_has_a_manifest_of_facts_sizes_and_digests(tmp_path: Path) -> None:
    with write_folder(tmp_path / "out", num_records=3) as folder:
        (folder / "inner").mkdir()
        (folder / "inner/a.txt").write_bytes(b"four")
    digest = hashlib.sha256(b"four").hexdigest()
    assert read_manifest(tmp_path / "out") == {
        "num_records": 3,
        "files": {"inner/a.txt": {"bytes": 4, "sha256": digest}},
    }
    assert names(tmp_path) == ["out"]


def test_parents_are_made_and_an_older_folder_is_replaced_whole(tmp_path: Path) -> None:
    output = tmp_path / "deep/out"
    with write_folder(output) as folder:
        (folder / "old").touch()
    with write_folder(output) as folder:
        (folder / "new").touch()
    assert names(output) == ["manifest.json", "new"]


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    for name in ("1", "2"):
        with write_folder(tmp_path / name, b=1, a={"y": 2, "x": 3}) as folder:
            for file in ("q", "p") if name == "1" else ("p", "q"):
                (folder / file).write_text(file)
    assert (tmp_path / "1/manifest.json").read_bytes() == (tmp_path / "2/manifest.json").read_bytes()


@pytest.mark.parametrize("fault", [ValueError("bug"), KeyboardInterrupt(), SystemExit(3)])
def test_an_exception_or_ctrl_c_leaves_nothing(tmp_path: Path, fault: BaseException) -> None:
    with pytest.raises(type(fault)):
        fail_while_writing(tmp_path / "out", fault)
    assert names(tmp_path) == []


def test_ctrl_c_leaves_the_finished_folder_of_before(tmp_path: Path) -> None:
    with write_folder(tmp_path / "out") as folder:
        (folder / "old").touch()
    with pytest.raises(KeyboardInterrupt):
        fail_while_writing(tmp_path / "out", KeyboardInterrupt())
    assert names(tmp_path / "out") == ["manifest.json", "old"]
    read_manifest(tmp_path / "out")


def test_a_full_disk_is_one_clear_error_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"out could not be written: .*No space left.*free space.*`dvc repro`"):
        fail_while_writing(tmp_path / "out", OSError(errno.ENOSPC, "No space left on device"))
    assert names(tmp_path) == []


def test_a_disk_that_fills_while_the_manifest_is_written_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill_disk(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", fill_disk)
    with pytest.raises(ArtifactError, match="No space left"), write_folder(tmp_path / "out") as folder:
        (folder / "whole").touch()
    assert names(tmp_path) == []


def test_a_killed_writer_leaves_nothing_that_a_reader_accepts_and_the_next_one_succeeds(tmp_path: Path) -> None:
    program = (
        "import os, signal; from pathlib import Path; from cambrian.artifacts import write_folder\n"
        f"with write_folder(Path({str(tmp_path / 'out')!r})) as folder:\n"
        "    (folder / 'half').write_text('half'); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[1], check=False)
    assert done.returncode == -signal.SIGKILL
    assert names(tmp_path) == [".out.partial"]
    for folder in (tmp_path / "out", tmp_path / ".out.partial"):
        with pytest.raises(ArtifactError, match=r"has no manifest\.json"):
            read_manifest(folder)
    with write_folder(tmp_path / "out") as folder:
        (folder / "whole").touch()
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == ["manifest.json", "whole"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "a.txt").unlink(), r"a\.txt has no file, the manifest says 4.*delete .*out"),
        (lambda folder: (folder / "a.txt").write_bytes(b"fo"), r"a\.txt has 2 bytes, the manifest says 4"),
        (lambda folder: (folder / "manifest.json").write_text("{"), r"manifest\.json is not JSON"),
        (lambda folder: (folder / "manifest.json").unlink(), r"has no manifest\.json: .*run `dvc repro`"),
    ],
)
def test_a_damaged_folder_is_refused(tmp_path: Path, damage: object, message: str) -> None:
    with write_folder(tmp_path / "out") as folder:
        (folder / "a.txt").write_bytes(b"four")
    assert callable(damage)
    damage(tmp_path / "out")
    with pytest.raises(ArtifactError, match=message):
        read_manifest(tmp_path / "out")


def test_json_has_sorted_keys_and_comes_back(tmp_path: Path) -> None:
    write_json(tmp_path / "deep/a.json", {"b": [1.5, None], "a": "é"})
    assert (tmp_path / "deep/a.json").read_text(encoding="utf-8").index('"a"') < 5
    assert read_json(tmp_path / "deep/a.json") == {"a": "é", "b": [1.5, None]}
    assert names(tmp_path / "deep") == ["a.json"]


def test_a_value_that_is_not_json_leaves_the_file_of_before(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", 1)
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"a": object()})
    assert read_json(tmp_path / "a.json") == 1
    assert names(tmp_path) == ["a.json"]


def test_a_full_disk_under_a_json_file_is_one_clear_error_and_leaves_the_file_of_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_json(tmp_path / "a.json", 1)

    def fill_disk(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", fill_disk)
    with pytest.raises(ArtifactError, match=r"a\.json could not be written: .*No space left.*Free space"):
        write_json(tmp_path / "a.json", 2)
    assert read_json(tmp_path / "a.json") == 1
    assert names(tmp_path) == ["a.json"]


def test_a_missing_json_file_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"a\.json is missing: run the stage"):
        read_json(tmp_path / "a.json")
