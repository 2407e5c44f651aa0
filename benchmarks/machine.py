"""What a result was measured on."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch

CPU_FILE = Path("/proc/cpuinfo")


def describe_machine(device: str) -> dict[str, str | int | float]:
    """Return the processor or GPU, the versions, and the load, all as measured results name them."""
    described: dict[str, str | int | float] = {
        "processor": _processor(),
        "cores": os.cpu_count() or 0,
        "threads": torch.get_num_threads(),
        "load_average": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    if device == "cuda":
        described |= {"gpu": torch.cuda.get_device_name(), "cuda": str(torch.version.cuda)}
    return described


def _processor() -> str:
    if CPU_FILE.exists():
        for line in CPU_FILE.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
