"""`panoptic <command>`: one readable module per command, imported only when it is asked for."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Sequence

COMMANDS = {
    "train": "train a network: panoptic train experiment=deeperlab_scenes",
    "evaluate": "score a trained run on held-out images: panoptic evaluate run=runs/my_run",
    "predict": "segment photographs with a trained run: panoptic predict run=runs/my_run images=photos/",
    "sweep": "run a W&B sweep file on this machine: panoptic sweep sweeps/lambda_grid.yaml",
    "table": "print the table of a sweep, with spread and paired differences: panoptic table sweeps/lambda_grid.yaml",
    "score": "score two COCO panoptic files: panoptic score TRUTH.json PREDICTION.json",
    "plot": "draw gradients and weights of tasks over a training: panoptic plot run=runs/my_run",
    "convert": "convert annotations, or write a submission: panoptic convert from=labelme from.folder=... out=...",
    "check-data": "find every fault of a data set at once: panoptic check-data data=coco_panoptic data.root=...",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its arguments stay in `sys.argv`, so that processes of a DDP run can be started alike."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview())
        return 0
    command, rest = arguments[0], arguments[1:]
    if command not in COMMANDS:
        near = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f", did you mean {near[0]!r}?" if near else ""
        print(f"panoptic: no command {command!r}{hint}\n{_overview()}", file=sys.stderr)
        return 2
    try:
        return int(importlib.import_module(f"panoptic.{command.replace('-', '_')}").main(rest))
    except KeyboardInterrupt:
        print(f"panoptic {command}: interrupted", file=sys.stderr)
        return 130
    except _explained() as error:
        if os.environ.get("PANOPTIC_TRACEBACK"):
            raise
        print(f"panoptic {command}: {error}\n(PANOPTIC_TRACEBACK=1 shows the traceback)", file=sys.stderr)
        return 1


def _explained() -> tuple[type[Exception], ...]:
    """Errors whose message says what to do: ours, and those of libraries that have been imported by now."""
    theirs = (
        ("hydra.errors", "HydraException"),
        ("omegaconf.errors", "OmegaConfBaseException"),
        ("lightning_fabric.utilities.exceptions", "MisconfigurationException"),
        ("wandb.errors", "Error"),
    )
    found = [getattr(sys.modules[module], name) for module, name in theirs if module in sys.modules]
    return (ValueError, OSError, *found)


def _overview() -> str:
    lines = [f"  {name:<10} {line}" for name, line in COMMANDS.items()]
    return "\n".join(["usage: panoptic <command> [arguments]; panoptic <command> --help explains one", *lines])


if __name__ == "__main__":
    sys.exit(main())
