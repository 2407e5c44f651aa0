from __future__ import annotations

import sys
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest
import torch

from cambrian.interfaces import Batch, ParamsError
from cambrian.params import parse_block
from cambrian.training.config import WatchConfig
from cambrian.training.processes import Processes
from cambrian.training.watch import Watch, count_flops_per_token, open_board

if TYPE_CHECKING:
    from pathlib import Path

HALF_PADDED = Batch(torch.zeros(2, 10), torch.zeros(2, 10), torch.arange(10).expand(2, 10) < 5, images=None)


def config(**changes: Any) -> WatchConfig:
    return parse_block(
        WatchConfig, {"every_steps": 2, "peak_tflops": None, "board": {"kind": "none"}, **changes}, where="watch"
    )


def make_watch(watch: WatchConfig, flops_per_token: float = 0.0) -> Watch:
    seconds = iter(range(0, 100, 4))
    return Watch(
        watch,
        what="runs.x",
        processes=Processes(0, 1),
        flops_per_token=flops_per_token,
        clock=lambda: float(next(seconds)),
    )


def test_speed_and_padding_are_those_of_the_steps_since_the_last_line(caplog: pytest.LogCaptureFixture) -> None:
    watch = make_watch(config(peak_tflops=1e-9), flops_per_token=100.0)
    with caplog.at_level("INFO", "cambrian"):
        for number, _ in enumerate(watch.pass_on(iter([[HALF_PADDED], [HALF_PADDED, None]] * 2)), start=1):
            watch.see(number, 2.5)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    for line in lines:  # 4 samples of 5 tokens in 4 seconds; 5 tokens a second x 100 operations of 1000 that there are
        assert "loss 2.5, samples_per_second 1, tokens_per_second 5, seconds_per_step 2, padding_share 0.5" in line
        assert "model_flop_utilisation 0.5" in line


def test_losses_of_sources_are_means_over_labels_since_the_last_line(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    watch = make_watch(config(board={"kind": "dvclive", "folder": str(tmp_path / "live")}))
    batch = replace(HALF_PADDED, sources=["vqa/a", "b"])
    with caplog.at_level("INFO", "cambrian"):
        for number, by_sample in enumerate(
            [[[6.0, 3.0], [1.0, 1.0]], [[2.0, 1.0], [5.0, 1.0]], [[0.0, 0.0], [7.0, 2.0]]]
        ):
            watch.hear(batch, torch.tensor(by_sample))
            watch.see(number + 1, 1.0)
        watch.see(4, 1.0)
    lines = [line for record in caplog.records if "by source" in (line := record.getMessage())]
    assert lines == [  # a source without labels since the last line has no loss there
        "runs.x: step 2, loss by source: b 3, vqa/a 2",
        "runs.x: step 4, loss by source: b 3.5",
    ]
    folder = tmp_path / "live" / "runs.x" / "plots" / "metrics"
    assert (folder / "loss_of_b.tsv").read_text().split() == ["step", "loss_of_b", "2", "3.0", "4", "3.5"]
    assert (folder / "loss_of_vqa_a.tsv").read_text().split() == ["step", "loss_of_vqa_a", "2", "2.0"]


def test_dvclive_draws_curves_that_dvc_reads(tmp_path: Path) -> None:
    watch = make_watch(config(board={"kind": "dvclive", "folder": str(tmp_path / "live")}))
    for number, _ in enumerate(watch.pass_on(iter([[HALF_PADDED]] * 4)), start=1):
        watch.see(number, 1.0 / number)
    table = (tmp_path / "live" / "runs.x" / "plots" / "metrics" / "loss.tsv").read_text().split()
    assert table == ["step", "loss", "2", "0.5", "4", "0.25"]


@pytest.mark.skipif(find_spec("tensorboard") is None, reason="tensorboard is not among our packages")
def test_tensorboard_draws_curves_that_it_reads(tmp_path: Path) -> None:
    watch = make_watch(config(board={"kind": "tensorboard", "folder": str(tmp_path / "live")}))
    for number, _ in enumerate(watch.pass_on(iter([[HALF_PADDED]] * 4)), start=1):
        watch.see(number, 1.0 / number)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(tmp_path / "live" / "runs.x"))
    found.Reload()
    assert [(point.step, point.value) for point in found.Scalars("loss")] == [(2, 0.5), (4, 0.25)]


@pytest.mark.skipif(find_spec("wandb") is None, reason="wandb is not among our packages")
def test_wandb_writes_a_run_that_can_be_sent_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    watch = make_watch(config(board={"kind": "wandb", "project": "x"}))
    for number, _ in enumerate(watch.pass_on(iter([[HALF_PADDED]] * 4)), start=1):
        watch.see(number, 1.0 / number)
    import wandb

    wandb.finish()
    (log,) = tmp_path.glob("wandb/offline-run-*/run-runs-x.wandb")
    content = log.read_bytes()
    assert b"padding_share" in content
    assert content.count(b"tokens_per_second") >= 2  # once a line


@pytest.mark.parametrize(
    ("board", "package"),
    [
        ({"kind": "wandb", "project": "x"}, "wandb"),
        ({"kind": "tensorboard", "folder": "logs"}, "tensorboard"),
        ({"kind": "dvclive", "folder": "logs"}, "dvclive"),
    ],
)
def test_a_board_that_is_not_installed_names_the_package(
    board: dict[str, str], package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (package, "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ParamsError, match=rf"board is {package}.*`uv pip install --python \S+ {package}`\), or choose"):
        open_board(config(board=board).board, "runs.x")


def test_weights_that_learn_cost_half_as_much_again() -> None:
    assert count_flops_per_token(10, learns=True) == 1.5 * count_flops_per_token(10, learns=False)
