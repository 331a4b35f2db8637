"""The one entry point of training: `accelerate launch training/train.py <stage> [flags]`.

A stage is a file beside this one with a frozen dataclass `Config`, from whose fields the flags are made, and
`main(config)`. Run the same command again to resume.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

NOT_STAGES = {"train", "run", "networks"}


def stages() -> list[str]:
    """Names of the stages: the files beside this one."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in NOT_STAGES)


def main(argv: list[str]) -> int:
    """Parse `<stage> [flags]` and run the stage; returns the exit status."""
    if not argv or argv[0] not in stages():
        given = f"unknown stage {argv[0]!r}" if argv and argv[0] not in ("-h", "--help") else "usage"
        sys.stderr.write(f"{given}: train.py <stage> [flags], with a stage of {', '.join(stages())}\n")
        return 0 if argv[:1] in (["-h"], ["--help"]) else 2
    import run  # after the check, so that help is quick

    stage = importlib.import_module(argv[0])
    config = run.parse_flags(stage.Config, argv[1:], prog=f"train.py {argv[0]}", presets=getattr(stage, "PRESETS", {}))
    try:
        stage.main(config)
    except run.UserError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
