"""Makes torchvision importable beside a build of torch that its compiled operators do not fit.

The registry's torchvision is built against CUDA. Beside a CPU build of torch its operator library does not load, and
`import torchvision` (so timm, too) then fails because it registers shape rules for operators that nobody declared.
Declaring the two schemas is enough for everything but the operators themselves, which this project never calls. Where
the library loads, nothing is done.
"""

import functools
import importlib.util
from pathlib import Path

import torch

_DETECTION_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


@functools.cache
def declare_missing_operators() -> torch.library.Library | None:
    """Declare torchvision's operators if its own library cannot; call before timm or torchvision is imported.

    Returns the declaration, which must stay alive (the cache keeps it), or None where nothing had to be declared.
    """
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.submodule_search_locations is None:
        raise ImportError("torchvision is not installed: timm needs it; install the project's lock")
    if any(_loads(path) for folder in spec.submodule_search_locations for path in sorted(Path(folder).glob("_C.*"))):
        return None
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for operator in ("nms", "qnms"):
        library.define(operator + _DETECTION_SCHEMA)  # type: ignore[no-untyped-call]
    return library


def _loads(path: Path) -> bool:
    try:
        torch.ops.load_library(path)  # type: ignore[no-untyped-call]
    except OSError:
        return False
    return True
