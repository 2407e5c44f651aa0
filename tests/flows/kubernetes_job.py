"""What Prefect's own Kubernetes worker makes of a job template, and whether Kubernetes knows every field of it.

    python -m tests.flows.kubernetes_job < {"template": ..., "values": ..., "name": ...}

Writes the job as JSON, and what of it Kubernetes' models do not have. Needs `make setup-kubernetes`, and is a process
of its own, as Prefect loads every extension that it finds.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from kubernetes_asyncio.client import models
from prefect.client.schemas.objects import Flow, FlowRun
from prefect_kubernetes.worker import KubernetesWorkerJobConfiguration

if TYPE_CHECKING:
    from collections.abc import Iterator

PLAIN: dict[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "bool": (bool,), "float": (int, float)}


async def build_job(template: dict[str, Any], values: dict[str, Any], name: str) -> Any:
    """Build the job as a worker does before it sends it to the cluster."""
    configuration = await KubernetesWorkerJobConfiguration.from_template_and_values(template, values)
    configuration.prepare_for_flow_run(FlowRun(id=uuid4(), flow_id=uuid4(), name=name), flow=Flow(name="stage"))
    return configuration.job_manifest


def find_strange(value: Any, kind: str, path: str) -> Iterator[str]:
    """Name the fields that the kind does not have, or that are of another type."""
    if inner := re.fullmatch(r"list\[(.+)\]", kind):
        for number, item in enumerate(value):
            yield from find_strange(item, inner[1], f"{path}/{number}")
    elif inner := re.fullmatch(r"dict\(str, (.+)\)", kind):
        for name, item in value.items():
            yield from find_strange(item, inner[1], f"{path}/{name}")
    elif "/resources/" in path and isinstance(value, int):
        pass  # a quantity: Kubernetes takes a number or text, and calls both text
    elif kind in PLAIN:
        if not isinstance(value, PLAIN[kind]) or (isinstance(value, bool) and kind != "bool"):
            yield f"{path} is {value!r}, not {kind}"
    elif hasattr(models, kind):
        model = getattr(models, kind)
        fields = {key: model.openapi_types[name] for name, key in model.attribute_map.items()}
        for name, item in value.items():
            if name in fields:
                yield from find_strange(item, fields[name], f"{path}/{name}")
            else:
                yield f"{path}/{name} is not a field of {kind}"


def main() -> None:
    """Read a template and values, write the job."""
    wanted = json.load(sys.stdin)
    job = asyncio.run(build_job(wanted["template"], wanted["values"], wanted["name"]))
    json.dump({"job": job, "strange": list(find_strange(job, "V1Job", ""))}, sys.stdout)


if __name__ == "__main__":
    main()
