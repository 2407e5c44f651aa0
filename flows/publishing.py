"""What a run shows in Prefect's UI: its stages, their commands, the tables and images that they made."""

from __future__ import annotations

from io import StringIO
from typing import TYPE_CHECKING, Any

from prefect import get_run_logger
from prefect.artifacts import create_image_artifact, create_link_artifact, create_table_artifact
from ruamel.yaml import YAML

from flows.artifacts import ArtifactFileError, build_key, find_files, read_image, read_table
from flows.difference import describe_errors
from flows.handover import find_remote
from flows.links import MAX_HOURS, LinkError, make_link

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from flows.difference import Difference
    from flows.graph import Project, StageNode
    from flows.schedule import Outcome
    from flows.settings import Needs


_SECONDS_PER_MINUTE, _SECONDS_PER_HOUR = 60.0, 3600.0
_MAX_ROWS = 500
"""Of a table in the UI, which is stored in the server's database at every run."""


def describe_stage(command: str, params: Mapping[str, Any]) -> str:
    """Write a stage's command and params as Markdown."""
    text = StringIO()
    YAML().dump(dict(params), text)
    return f"~~~~\n{command}\n~~~~\n" + (f"\n~~~~\n{text.getvalue()}~~~~\n" if params else "")


def publish_overview(
    stages: Sequence[StageNode],
    outcomes: Mapping[str, Outcome],
    seconds: Mapping[str, float],
    needs: Mapping[str, Needs],
) -> None:
    """Show how every stage ended, and how long those took that were started: minutes, and hours of GPUs held."""
    create_table_artifact(
        key="stages",
        table=[
            {
                "stage": stage.address,
                "state": outcomes[stage.address].value,
                **describe_costs(stage.address, seconds, needs),
            }
            for stage in stages
        ],
        description="Every stage of this run, in the order in which DVC takes them.",
    )


def describe_costs(address: str, seconds: Mapping[str, float], needs: Mapping[str, Needs]) -> dict[str, float]:
    """Minutes that a stage took, and hours of the GPUs that it held meanwhile; zero of one that was not started."""
    took_s = seconds.get(address, 0.0)
    gpus = (needs[address].gpus or 0) if address in needs else 0
    return {
        "minutes": round(took_s / _SECONDS_PER_MINUTE, 2),
        "gpu_hours": round(gpus * took_s / _SECONDS_PER_HOUR, 3),
    }


def publish_difference(difference: Difference) -> None:
    """Show what the run changed against a commit: scores, how many results have which verdict, and which have another.

    Scores that moved by noise are shown, and said to be noise.
    """
    against = f"against {difference.before}"
    create_table_artifact(
        key="scores",
        table=[
            {
                "score": change.name,
                "before": change.old,
                "now": change.new,
                "more than noise?": change.verdict,
                "because of": _name(difference, change.name),
            }
            for change in sorted(difference.scores, key=lambda change: -(change.num_errors or 0.0))[:_MAX_ROWS]
        ],
        description=f"{len(difference.scores)} scores that are not what they were, {against}.",
    )
    create_table_artifact(
        key="verdicts",
        table=[
            {
                "in": file.title,
                "verdict": word,
                "before": file.counts_before.get(word, 0),
                "now": file.counts_after.get(word, 0),
            }
            for file in difference.results
            for word in sorted({*file.counts_before, *file.counts_after})
        ],
        description=f"How many results have which verdict, {against}.",
    )
    changed = [(file, change) for file in difference.results for change in file.reversed]
    create_table_artifact(
        key="changed-verdicts",
        table=[
            {
                "in": file.title,
                "what": change.key,
                "before": change.old.word,
                "now": change.new.word,
                "its number moved by": describe_errors(change.num_errors),
                "because of": _name(difference, f"{file.path}: {change.key}"),
            }
            for file, change in changed[:_MAX_ROWS]
        ],
        description=f"{len(changed)} results with another verdict, {against}.",
    )


def _name(difference: Difference, what: str) -> str:
    return ", ".join(cause.subject for cause in difference.causes[what])


def publish_files(patterns: Mapping[str, Sequence[str]], outs: Sequence[Path]) -> None:
    """Show the tables and images that the stages made; one that cannot be shown is logged and fails nothing."""
    log = get_run_logger()
    for kind, wanted in patterns.items():
        files = find_files(wanted, outs=outs)
        if wanted and not files:
            log.info("no %s to show: no output of these stages matches %s", kind, ", ".join(wanted))
        for path in files:
            try:
                if kind == "table":
                    create_table_artifact(key=build_key(path), table=read_table(path), description=f"`{path}`")
                else:
                    create_image_artifact(key=build_key(path), image_url=read_image(path), description=f"`{path}`")
            except ArtifactFileError as error:
                log.warning("not shown: %s", error)


def publish_links(project: Project, remote: str | None, patterns: Sequence[str], outs: Sequence[Path]) -> None:
    """Link to outputs in the bucket of the DVC remote, for a week; without a bucket, to where they lie here.

    Browsers open a file of this machine only when its address is typed or pasted.
    """
    from flows.bucket import S3_FAULTS, BucketError, open_bucket  # importing boto3 takes half a second

    log = get_run_logger()
    files = find_files(patterns, outs=outs)
    if not files:
        return
    try:
        name = find_remote(project, remote)
        bucket = open_bucket(name, project.repository.config["remote"][name])
    except (LookupError, BucketError) as error:
        log.info("links to outputs are to files of this machine: %s", error)
        for path in files:
            create_link_artifact(
                path.absolute().as_uri(),
                link_text=str(path),
                key=build_key(path),
                description=f"`{path}`, on this machine",
            )
        return
    for path in files:
        try:
            link = make_link(project, bucket, path, hours=MAX_HOURS)
            create_link_artifact(link, link_text=str(path), key=build_key(path), description=f"`{path}`, for a week")
        except (LinkError, *S3_FAULTS) as error:
            log.warning("no link: %s", error)
