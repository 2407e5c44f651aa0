"""What a run shows in Prefect's UI: its stages, their commands, the tables and images that they made."""

from __future__ import annotations

from io import StringIO
from typing import TYPE_CHECKING, Any

from prefect import get_run_logger
from prefect.artifacts import create_image_artifact, create_link_artifact, create_table_artifact
from ruamel.yaml import YAML

from flows.artifacts import ArtifactFileError, build_key, find_files, read_image, read_table
from flows.handover import find_remote
from flows.links import MAX_HOURS, LinkError, make_link

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from flows.graph import Project, StageNode
    from flows.schedule import Outcome


def describe_stage(command: str, params: Mapping[str, Any]) -> str:
    """Write a stage's command and params as Markdown."""
    text = StringIO()
    YAML().dump(dict(params), text)
    return f"~~~~\n{command}\n~~~~\n" + (f"\n~~~~\n{text.getvalue()}~~~~\n" if params else "")


def publish_overview(
    stages: Sequence[StageNode], outcomes: Mapping[str, Outcome], seconds: Mapping[str, float]
) -> None:
    """Show how every stage ended, and how long those took that were started."""
    create_table_artifact(
        key="stages",
        table=[
            {
                "stage": stage.address,
                "state": outcomes[stage.address].value,
                "seconds": round(seconds.get(stage.address, 0.0), 1),
            }
            for stage in stages
        ],
        description="Every stage of this run, in the order in which DVC takes them.",
    )


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
    """Link to outputs in the bucket of the DVC remote, for a week; what is not there is logged."""
    from flows.bucket import S3_FAULTS, BucketError, open_bucket  # importing boto3 takes half a second

    log = get_run_logger()
    files = find_files(patterns, outs=outs)
    if not files:
        return
    try:
        name = find_remote(project, remote)
        bucket = open_bucket(name, project.repository.config["remote"][name])
    except (LookupError, BucketError) as error:
        log.info("no links to outputs: %s", error)
        return
    for path in files:
        try:
            link = make_link(project, bucket, path, hours=MAX_HOURS)
            create_link_artifact(link, link_text=str(path), key=build_key(path), description=f"`{path}`, for a week")
        except (LinkError, *S3_FAULTS) as error:
            log.warning("no link: %s", error)
