"""The README's Python runs as it stands, only shorter."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_the_readme_python_runs(tmp_path: Path) -> None:
    code = re.search(r"```python\n(.*?)```", README.read_text(), re.DOTALL).group(1)
    assert "seconds=60" in code
    code = code.replace("seconds=60", "steps=3")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "seven.png").stat().st_size > 0 and done.stdout.count("Progress") == 3


def test_every_link_of_the_docs_leads_somewhere() -> None:
    root = README.parent
    for page in [README, *sorted((root / "docs").glob("*.md")), root / "benchmarks" / "README.md"]:
        prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)#]+)\)", prose):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name} links to {target}"
