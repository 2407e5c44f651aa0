"""The bucket behind the DVC remote, from the command line.

python -m flows.storage check                        reachable, writable, versioned, encrypted?
python -m flows.storage lifecycle [--apply]          old versions and half uploads go after a while
python -m flows.storage list [--rev REV ...]         what is named, what is not, what is missing
python -m flows.storage prune [--rev REV ...] [--delete]     delete what no dvc.lock names; without --delete, say so
python -m flows.storage link PATH                    a link to one output that works without credentials
python -m flows.storage serve                        a bucket on this machine, to try things out
"""

from __future__ import annotations

import flows.telemetry  # noqa: F401  # isort: skip  (before dvc, which reads the environment when imported)

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from flows.bucket import (
    S3_FAULTS,
    Bucket,
    BucketError,
    build_rules,
    check_bucket,
    open_bucket,
    read_rules,
    write_rules,
)
from flows.graph import GraphError, Project
from flows.handover import find_remote
from flows.links import LinkError, make_link
from flows.local_s3 import serve
from flows.references import Census, UnreadableError, list_artefacts, list_commits, take_census

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flows.bucket import Stored

_KIB = 1024


def main() -> None:
    """Answer on standard output; the exit status is 1 when a check fails or nothing can be said."""
    args = _build_parser().parse_args()
    try:
        if args.command == "serve":
            serve(args.port, args.bucket)
            return
        with Project() as project:
            remote = find_remote(project, args.remote)
            bucket = open_bucket(remote, project.repository.config["remote"][remote])
            if args.command == "link":
                _say(make_link(project, bucket, Path(args.path), hours=args.hours))
                return
            is_good = _answer(args, project.root, bucket)
    except (GraphError, LookupError, BucketError, UnreadableError, LinkError, *S3_FAULTS) as error:
        sys.exit(str(error))
    if not is_good:
        sys.exit(1)


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m flows.storage", description="The bucket behind the DVC remote.")
    parser.add_argument("--remote", metavar="NAME", help="DVC remote; default: DVC's default")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("check", help="reachable, writable, versioned, encrypted?")
    lifecycle = commands.add_parser("lifecycle", help="old versions and half uploads go after a while")
    lifecycle.add_argument("--keep-days", type=int, default=30, metavar="N", help="for what was deleted or overwritten")
    lifecycle.add_argument("--upload-days", type=int, default=7, metavar="N", help="for uploads that never ended")
    lifecycle.add_argument("--apply", action="store_true", help="set the rules; without it they are only shown")
    for name, words in (("list", "what is named, what is not, what is missing"), ("prune", "delete what is not named")):
        command = commands.add_parser(name, help=words)
        command.add_argument("--rev", action="append", default=[], metavar="REV", help="default: all branches and tags")
        command.add_argument("--all-commits", action="store_true", help="what any commit of them ever named")
        command.add_argument("--older-than", type=float, default=7.0, metavar="DAYS", help="leave newer ones alone (7)")
    commands.choices["prune"].add_argument("--delete", action="store_true", help="do it; without it, only say what")
    link = commands.add_parser("link", help="a link to one output that works without credentials")
    link.add_argument("path")
    link.add_argument("--hours", type=float, default=24.0)
    server = commands.add_parser("serve", help="a bucket on this machine, to try things out")
    server.add_argument("--port", type=int, default=5555)
    server.add_argument("--bucket", default="cambrian")
    return parser


def _answer(args: argparse.Namespace, root: Path, bucket: Bucket) -> bool:
    if args.command == "check":
        findings = check_bucket(bucket)
        for finding in findings:
            word = "ok" if finding.is_good else "ERROR" if finding.is_needed else "warning"
            _say(f"{finding.name:<11}{word:<9}{finding.message}")
        return all(finding.is_good or not finding.is_needed for finding in findings)
    if args.command == "lifecycle":
        rules = build_rules(bucket, keep_days=args.keep_days, upload_days=args.upload_days)
        if args.apply:
            write_rules(bucket, rules)
        _say(
            json.dumps(
                {"set": rules} if args.apply else {"would be set": rules, "set now": read_rules(bucket)}, indent=2
            )
        )
        return True
    revisions = list_commits(root) if args.all_commits else args.rev
    census = take_census(bucket, list_artefacts(root, revisions), older_than_days=args.older_than)
    _describe(census)
    if args.command == "prune":
        for stored in census.unwanted:
            _say(f"{'deleted' if args.delete else 'would delete'} {stored.key} ({_write_size([stored])})")
        if args.delete:
            bucket.delete([stored.key for stored in census.unwanted])
    return True


def _describe(census: Census) -> None:
    for words, group in (
        ("named by a dvc.lock", census.wanted),
        ("named by none", census.unwanted),
        ("named by none, and new", census.young),
    ):
        _say(f"{len(group):>8} objects {_write_size(group):>12}  {words}")
    _say(f"{len(census.missing):>8} outputs               named, and not there")
    for artefact in census.missing[:20]:
        _say(f"  missing: {artefact.path} ({artefact.digest})")


def _write_size(group: Iterable[Stored]) -> str:
    size = float(sum(stored.size for stored in group))
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < _KIB:
            return f"{size:.0f} {unit}"
        size /= _KIB
    return f"{size:.1f} TiB"


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    main()
