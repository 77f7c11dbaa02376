"""The main job on real pictures: train five minutes on emoji of people, measure, and write a report worth looking at.

    python recipes/demo.py --run runs/demo        (what `make demo` runs)

Its last line is the path of the report.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from sfumato.cli import main as sfumato


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("runs/demo"))
    parser.add_argument("--source", default="emoji-people")
    parser.add_argument("--size", default="32")
    parser.add_argument("--minutes", default="5")
    parser.add_argument("--n", default="512", help="pictures to measure with")
    options = parser.parse_args()
    if (options.run / "run.json").exists():  # the demo's own run of before; anything else is not ours to remove
        shutil.rmtree(options.run)
    run = str(options.run)
    code = sfumato(["train", options.source, "--run", run, "--size", options.size, "--minutes", options.minutes])
    code = code or sfumato(["measure", run, "--against", options.source, "--n", options.n, "--curve"])
    if code == 0:
        print(options.run / "report.html")
    return code


if __name__ == "__main__":
    sys.exit(main())
