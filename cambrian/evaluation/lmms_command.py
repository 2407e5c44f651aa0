"""`python -m cambrian.evaluation.lmms_command ...`: the command of lmms-eval, also beside a CPU build of torch.

lmms-eval imports torchvision before it looks for plug-ins, and torchvision cannot be imported beside a build of torch
that its operators do not fit (`cambrian.models.torchvision_shim`). Where they fit, `lmms-eval ...` is the same.
"""

from __future__ import annotations

from cambrian.models.torchvision_shim import declare_missing_operators


def main() -> None:
    """Run lmms-eval with the arguments of this process."""
    declare_missing_operators()
    from lmms_eval.cli.dispatch import main as run_lmms_eval

    run_lmms_eval()


if __name__ == "__main__":
    main()
