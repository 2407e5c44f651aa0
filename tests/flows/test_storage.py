"""The bucket behind a DVC remote, on a local S3 server."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import boto3
import pytest

from flows.bucket import BucketError, build_rules, check_bucket, open_bucket, read_rules, write_rules
from flows.graph import Project
from flows.links import LinkError, make_link
from flows.local_s3 import make_bucket
from flows.references import UnreadableError, list_artefacts, list_commits, take_census
from flows.storage import main
from tests.flows.conftest import DemoProject


@pytest.fixture(scope="module")
def pushed(empty_project: Path, s3: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that has pushed one file and one folder to the bucket `template`; to be copied, with the bucket."""
    root = tmp_path_factory.mktemp("pushed")
    shutil.copytree(empty_project, root, dirs_exist_ok=True)
    project = DemoProject(root)
    make_bucket(s3, "template")
    project.use_bucket("s3://template/dvc", s3)
    project.write(
        {
            "file": {"cmd": "echo 1 > file.txt", "deps": ["source.txt"], "outs": ["file.txt"]},
            "folder": {
                "cmd": "mkdir folder && echo 2 > folder/a.json && echo 3 > folder/b.txt",
                "deps": ["source.txt"],
                "outs": ["folder"],
            },
        }
    )
    (root / "source.txt").write_text("1\n")
    project.dvc("repro", "--quiet")
    project.dvc("push", "--quiet", "--run-cache")
    project.commit()
    return root


@pytest.fixture
def remote(pushed: Path, project: DemoProject, s3: str, tmp_path: Path) -> dict[str, str]:
    """The project with a bucket of its own; the remote's options."""
    name = tmp_path.name.replace("_", "-").lower()[-40:].strip("-")
    make_bucket(s3, name)
    client = boto3.client("s3", endpoint_url=s3)
    for found in client.list_objects_v2(Bucket="template")["Contents"]:
        client.copy_object(Bucket=name, Key=found["Key"], CopySource={"Bucket": "template", "Key": found["Key"]})
    shutil.rmtree(project.root / ".git")
    shutil.copytree(pushed, project.root, dirs_exist_ok=True)
    project.use_bucket(f"s3://{name}/dvc", s3)
    project.commit()
    return {"url": f"s3://{name}/dvc", "endpointurl": s3}


def write_second_version(project: DemoProject) -> None:
    """Make file.txt anew, without committing the lock; what it was is named by the commit alone."""
    text = (project.root / "dvc.yaml").read_text()
    (project.root / "dvc.yaml").write_text(text.replace("echo 1", "echo 11"))
    project.dvc("repro", "--quiet")
    project.dvc("push", "--quiet", "--run-cache")


def test_a_good_bucket_passes_every_check(remote: dict[str, str]) -> None:
    findings = check_bucket(open_bucket("s3", remote))
    assert [finding.name for finding in findings] == ["reachable", "writable", "versioned", "encrypted"]
    assert all(finding.is_good for finding in findings), findings


def test_a_bucket_that_is_not_there_or_unprotected_is_named(s3: str) -> None:
    (missing,) = check_bucket(open_bucket("s3", {"url": "s3://no-such-bucket/dvc", "endpointurl": s3}))
    assert (missing.name, missing.is_good, missing.is_needed) == ("reachable", False, True)
    boto3.client("s3", endpoint_url=s3).create_bucket(Bucket="plain")
    findings = {
        finding.name: finding for finding in check_bucket(open_bucket("s3", {"url": "s3://plain", "endpointurl": s3}))
    }
    assert findings["writable"].is_good
    assert not findings["versioned"].is_good
    assert not findings["versioned"].is_needed


def test_a_remote_that_is_a_folder_is_refused() -> None:
    with pytest.raises(BucketError, match="expected s3://BUCKET/PREFIX"):
        open_bucket("store", {"url": "/somewhere"})


def test_the_lifecycle_leaves_the_rules_of_others_alone(remote: dict[str, str]) -> None:
    bucket = open_bucket("s3", remote)
    other = {"ID": "theirs", "Status": "Enabled", "Filter": {"Prefix": "logs/"}, "Expiration": {"Days": 3}}
    write_rules(bucket, [other])
    for keep_days in (10, 30):
        write_rules(bucket, build_rules(bucket, keep_days=keep_days, upload_days=7))
    rules = {rule["ID"]: rule for rule in read_rules(bucket)}
    assert set(rules) == {"theirs", "flows dvc/"}
    assert rules["flows dvc/"]["NoncurrentVersionExpiration"]["NoncurrentDays"] == 30
    assert rules["flows dvc/"]["Filter"] == {"Prefix": "dvc/"}


def test_what_a_commit_names_is_kept_and_the_rest_goes(project: DemoProject, remote: dict[str, str]) -> None:
    bucket = open_bucket("s3", remote)
    write_second_version(project)
    bucket.client.put_object(Bucket=bucket.name, Key="dvc/notes.txt", Body=b"not DVC's")
    census = take_census(bucket, list_artefacts(project.root, []), older_than_days=0)
    # two versions of the file, the folder with its list and two files, three run-cache entries
    assert (len(census.wanted), census.unwanted, census.missing) == (8, (), ())
    project.git("commit", "--quiet", "--all", "--message", "Second")
    census = take_census(bucket, list_artefacts(project.root, ["HEAD"]), older_than_days=0)
    assert [stored.digest is None for stored in census.unwanted] == [True, False]
    assert (
        take_census(bucket, list_artefacts(project.root, list_commits(project.root)), older_than_days=0).unwanted == ()
    )
    assert take_census(bucket, list_artefacts(project.root, ["HEAD"]), older_than_days=1).unwanted == ()


def test_pruning_says_what_it_would_delete_and_does_it_only_when_told(
    project: DemoProject, remote: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bucket = open_bucket("s3", remote)
    write_second_version(project)
    project.git("commit", "--quiet", "--all", "--message", "Second")
    command = ["flows.storage", "prune", "--rev", "HEAD", "--older-than", "0"]
    monkeypatch.setattr(sys, "argv", command)
    main()
    assert capsys.readouterr().out.count("would delete dvc/") == 2
    assert len(list(bucket.iter_stored())) == 8
    monkeypatch.setattr(sys, "argv", [*command, "--delete"])
    main()
    assert capsys.readouterr().out.count("deleted dvc/") == 2
    assert len(list(bucket.iter_stored())) == 6
    for path in ("file.txt", "folder"):
        subprocess.run(["rm", "-rf", path, ".dvc/cache"], check=True)
    project.dvc("pull", "--quiet")
    assert (project.root / "file.txt").read_text() == "11\n"


def test_a_lock_that_cannot_be_parsed_stops_everything(project: DemoProject, remote: dict[str, str]) -> None:
    (project.root / "dvc.lock").write_text("stages: [")
    with pytest.raises(UnreadableError, match=r"dvc\.lock cannot be parsed"):
        list_artefacts(project.root, [])


def test_what_is_named_and_not_there_is_listed(project: DemoProject, remote: dict[str, str]) -> None:
    bucket = open_bucket("s3", remote)
    artefacts = list_artefacts(project.root, [])
    bucket.delete([bucket.locate(artefacts[0].digest)])
    assert [artefact.path for artefact in take_census(bucket, artefacts, older_than_days=0).missing] == ["file.txt"]


def test_a_link_works_without_credentials(project: DemoProject, remote: dict[str, str]) -> None:
    bucket = open_bucket("s3", remote)
    with Project() as opened:
        link = make_link(opened, bucket, Path("folder/a.json"), hours=1)
        with urllib.request.urlopen(link) as answer:
            assert json.load(answer) == 2
            assert answer.headers["Content-Type"] == "application/json"
        for path, message in (("folder", "a link goes to one file"), ("source.txt", "no output that DVC holds")):
            with pytest.raises(LinkError, match=message):
                make_link(opened, bucket, Path(path), hours=1)
        with pytest.raises(LinkError, match="at most 168"):
            make_link(opened, bucket, Path("file.txt"), hours=1000)
    bucket.delete([stored.key for stored in bucket.iter_stored()])
    with Project() as opened, pytest.raises(LinkError, match=r"dvc push file\.txt"):
        make_link(opened, bucket, Path("file.txt"), hours=1)


def test_the_command_checks_and_reports_by_its_status(
    remote: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["flows.storage", "check"])
    main()
    assert capsys.readouterr().out.count(" ok ") == 4
    monkeypatch.setattr(sys, "argv", ["flows.storage", "--remote", "nothing", "check"])
    with pytest.raises(SystemExit, match="the DVC remote nothing is not configured"):
        main()
