"""`panoptic <command>`: one readable module per command, imported only when it is asked for."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

COMMANDS = {
    "train": "train a network: panoptic train experiment=deeperlab_scenes",
    "evaluate": "score a trained run on held-out images: panoptic evaluate run=runs/my_run",
    "predict": "segment photographs with a trained run: panoptic predict run=runs/my_run images=photos/",
    "score": "score two COCO panoptic files: panoptic score TRUTH.json PREDICTION.json",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its arguments stay in `sys.argv`, so that processes of a DDP run can be started alike."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview())
        return 0
    command, rest = arguments[0], arguments[1:]
    if command not in COMMANDS:
        print(f"panoptic: no command {command!r}\n{_overview()}", file=sys.stderr)
        return 2
    run = importlib.import_module(f"panoptic.{command}").main
    try:
        return int(run(rest))
    except (ValueError, OSError) as error:
        if os.environ.get("PANOPTIC_TRACEBACK"):
            raise
        print(f"panoptic {command}: {error}\n(PANOPTIC_TRACEBACK=1 shows the traceback)", file=sys.stderr)
        return 1


def _overview() -> str:
    lines = [f"  {name:<10} {line}" for name, line in COMMANDS.items()]
    return "\n".join(["usage: panoptic <command> [arguments]; panoptic <command> --help explains one", *lines])


if __name__ == "__main__":
    sys.exit(main())
