"""`python -m tests.house.hygiene`: no file that is committed may name a machine's own paths or a package registry.

Such a name works for whoever wrote it and for nobody else: paths differ, and registries are reached through mirrors
that each machine configures for itself.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Written so that no pattern matches its own text.
PATTERNS = (
    (re.compile(r"/(?:home|Users)/\w"), "a home folder"),
    (re.compile(r"(?<![\w.])/(?:root|work)/[\w.]"), "a path of one machine"),
    (re.compile(r"\b[A-Za-z]:\\\\?Users\b"), "a home folder"),
    (re.compile(r"(?i)\b(?:pypi\.(?:org|python)|files\.python[h]osted|pythonhosted\.org)"), "a package registry"),
    (re.compile(r"(?i)\b(?:registry\.(?:npmjs|yarnpkg)|npmjs\.(?:org|com))\b"), "a package registry"),
    (re.compile(r"(?i)--(?:extra-)?index-url[ =]\S|^\s*(?:extra-)?index-url\s*="), "a package registry"),
    (re.compile(r'"resolved":\s*"http'), "a package registry (npm's lock is written without addresses)"),
)


def committed(root: Path) -> Iterator[Path]:
    """Files git has, or would take."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        check=True,
    ).stdout.decode()
    yield from (path for name in listing.split("\0") if name and (path := root / name).is_file())


def findings(path: Path) -> Iterator[str]:
    """What is wrong in one file; binary files are passed over."""
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError:
        return
    for number, line in enumerate(text.splitlines(), 1):
        for pattern, what in PATTERNS:
            if found := pattern.search(line):
                yield f"{number}: {found.group().strip()!r} is {what}"


def main() -> int:
    """Exit status: 1 where anything was found."""
    if not (ROOT / ".git").exists():
        print("hygiene: not a git checkout, nothing to check")
        return 0
    found = [f"{path.relative_to(ROOT)}:{what}" for path in committed(ROOT) for what in findings(path)]
    print("\n".join(found) if found else "hygiene: no machine's paths, no registry's names")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
