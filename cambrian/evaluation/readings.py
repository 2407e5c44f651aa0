"""The stored replies of one run in every reading, as a file: the paper's rules, a grader, and the clean part alone.

Source: paper, NeurIPS table 24 (fuzzy matching against GPT-3.5 grading) and table 19 (test images in training data).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pydantic
from pydantic import Field

from cambrian.artifacts import read_manifest, write_json
from cambrian.evaluation.benchmarks.registry import read_items
from cambrian.evaluation.compare import WITHOUT_IMAGE, Answers
from cambrian.evaluation.judge import Judge
from cambrian.evaluation.regrade import read_disputed, read_leaked, regrade
from cambrian.evaluation.replies import read_replies
from cambrian.params import Params

if TYPE_CHECKING:
    from cambrian.evaluation.config import EvaluationConfig
    from cambrian.evaluation.regrade import Readings


class StrictGrader(Params):
    """The strict rules (cambrian/evaluation/strict.py): no model, the reference answers decide."""

    kind: Literal["strict-rules"]

    @property
    def name(self) -> str:
        """How the report calls it."""
        return "strict rules, no language model"


class ModelGrader(Params):
    """A language model behind an OpenAI-compatible endpoint; what it once said is not asked again."""

    kind: Literal["language-model"]
    model: str
    recordings: str
    """The file that keeps its judgements. Outside DVC's outputs, as the log of replies is."""

    @property
    def name(self) -> str:
        """How the report calls it."""
        return self.model


class GradingBlock(pydantic.RootModel[Annotated[StrictGrader | ModelGrader, Field(discriminator="kind")]]):
    """The block `grading` of scales/<scale>.yaml: what stands for the paper's GPT-3.5."""

    model_config = pydantic.ConfigDict(strict=True, frozen=True)


def write_readings(
    grading: GradingBlock,
    config: EvaluationConfig,
    *,
    replies: Path,
    benchmarks: Path,
    leakage: Path,
    run: str,
    use_images: bool,
    scale: str,
    output: Path,
) -> None:
    """Write every score of a run by the paper's rules, by the grader, and on the items whose picture is not leaked.

    `leakage` is what the gate found of the mix that the run was trained on.

    Raises:
        ArtifactError: replies or items are missing or do not belong together, the gate has not seen an item's
            picture, or the grader cannot be asked.
    """
    read_manifest(benchmarks)
    items = {name: read_items(benchmarks, name, prompt) for name, prompt in config.prompts.items()}
    grader = grading.root
    judge = Judge(grader.model, Path(grader.recordings)) if isinstance(grader, ModelGrader) else None
    answers = Answers(run if use_images else f"{run}{WITHOUT_IMAGE}", read_replies(replies), use_images)
    rows = regrade(answers, items, disputed=read_disputed(benchmarks), leaked=read_leaked(leakage, items), judge=judge)
    scores = {row.score: _describe(row, judged=judge is not None) for row in rows}
    write_json(output, {"run": run, "scale": scale, "grader": grader.name, "scores": scores})


def _describe(row: Readings, *, judged: bool) -> dict[str, Any]:
    grader = (row.judge, row.judge_error, row.judge_difference, row.judge_difference_error)
    if not judged:
        grader = (row.strict, row.strict_error, row.difference, row.difference_error)
    return {
        "items": row.items,
        "rules": row.published,
        "rules_error": row.standard_error,
        **dict(zip(("grader", "grader_error", "difference", "difference_error"), grader, strict=True)),
        "leaked_items": row.leaked_items,
        "clean": row.without_leaked_items,
        "clean_error": row.without_leaked_error,
    }
