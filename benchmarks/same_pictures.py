"""Whether two installations make the same pictures, bit for bit, of the same inputs.

    python -m benchmarks.same_pictures OLD/bin/metaportrait NEW/bin/metaportrait --clip clip.mp4

Commands: `animate` with the bundled networks, without any, of the crop alone and with super-
resolution; `upscale`; `personalize` (its pictures, not its adapted weights, which depend on time).
Frames are compared as the result files decode.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import tempfile
from pathlib import Path

from metaportrait_cli.media.reader import open_frames
from metaportrait_cli.pipeline.person.portrait_file import load_portrait

SAMPLES = Path(__file__).parents[1] / "samples"


def main() -> None:
    """Prints a row a command; exits with 1 if any differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("installs", nargs=2, type=Path, metavar="METAPORTRAIT")
    parser.add_argument("--portrait", type=Path, default=SAMPLES / "portrait.png")
    parser.add_argument("--clip", type=Path, default=SAMPLES / "driver.mp4")
    chosen = parser.parse_args()
    old, new = chosen.installs
    differ = 0
    print("| command | frames | |\n|---|---|---|")
    for title, command, name in commands(chosen.portrait.resolve(), chosen.clip.resolve()):
        with tempfile.TemporaryDirectory() as folder:
            found = []
            for number, install in enumerate((old, new)):
                output = Path(folder) / f"{number}{name}"
                run([str(install), *command, "-o", str(output), "-q"], folder)
                found.append(digests(output))
        same = found[0] == found[1]
        differ += not same
        print(f"| {title} | {len(found[0])} | {'the same' if same else 'DIFFER'} |", flush=True)
    raise SystemExit(bool(differ))


def run(command: list[str], folder: str) -> None:
    """Runs an installation's command, whatever this one's Python path is."""
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run(command, check=True, cwd=folder, env=own, stdout=subprocess.DEVNULL)


def commands(portrait: Path, clip: Path) -> list[tuple[str, list[str], str]]:
    """Title, arguments and the end of the result's name of each."""
    animate = ["animate", "--source", str(portrait), "--driver", str(clip)]
    return [
        ("animate", animate, "a.mp4"),
        ("animate --weights none", [*animate, "--weights", "none"], "n.mp4"),
        ("animate --crop", [*animate, "--crop"], "c.mp4"),
        ("animate --size 768", [*animate, "--crop", "--size", "768"], "s.mp4"),
        ("animate, clip as source", [*animate, "--source", str(clip)], "v.mp4"),
        ("upscale", ["upscale", "-i", str(clip)], "u.mp4"),
        ("personalize", ["personalize", "--video", str(clip), "--seconds", "0"], "p.portrait"),
    ]


def digests(path: Path) -> list[str]:
    """Of each picture of a result."""
    if path.suffix == ".portrait":
        pictures = [view.picture for view in load_portrait(path).views]
    else:
        with open_frames(path) as frames:
            pictures = [frame.image for frame in frames]
    return [hashlib.sha256(picture.tobytes()).hexdigest() for picture in pictures]


if __name__ == "__main__":
    main()
