"""The one entry point of training: `accelerate launch training/train.py <stage> [flags]`.

A stage is a file beside this one with a frozen dataclass `Config`, from whose fields the flags are made, and
`main(config)`. Run the same command again to resume.
"""

from __future__ import annotations

import importlib
import sys

STAGES = {
    "generator": "train StyleGAN2 on photos",
    "reconstructor": "train an encoder, image to w, on a finished generator, for filter",
    "encoder": "learn to invert photos within an interest region, beside a finished generator",
    "distill": "raw photos to a cleaner model with modes: the stages in a row",
    "filter": "score photos, decide which to keep, write a manifest",
    "modes": "cluster what a model draws, for multi-modal truncation",
    "directions": "find what moves an attribute, by seeds, traits or closed forms, for edits",
    "alpha": "learn the subject of what a model draws, without labels",
    "matting": "teach a network the subject of photos, on what a model with alpha draws",
    "attribution": "calibrate whether a model made a picture, for the app",
    "evaluate": "measure a model against photos",
    "publish": "write the published form of a model, with its card",
    "perceptual": "distil the small perceptual network that ships with the package",
}


def main(argv: list[str]) -> int:
    """Parse `<stage> [flags]` and run the stage; returns the exit status."""
    if not argv or argv[0] not in STAGES:
        asked = argv[:1] in (["-h"], ["--help"])
        given = f"unknown stage {argv[0]!r}\n" if argv and not asked else ""
        told = "\n".join(f"  {name:<13} {text}" for name, text in STAGES.items())
        sys.stderr.write(f"{given}usage: train.py <stage> [flags]; train.py <stage> --help\n{told}\n")
        return 0 if asked else 2
    import run  # after the check, so that help is quick

    from hfgan.memory import keep_freed_memory

    keep_freed_memory()
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
