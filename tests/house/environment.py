"""`python -m tests.house.environment`: makes the development environment in `.venv`.

`make setup` runs it with any Python from 3.11 on, so it needs the standard library alone.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

from tests.house import system

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"


def main() -> int:
    """Exit status: 0 where everything is in place, else the one of the step that failed."""
    if not _works():
        if importlib.util.find_spec("ensurepip") is None:
            # Debian's Python leaves out what environments are made with.
            package = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
            if problem := system.install([package]):
                print(f"error: set-up needs {package}, and {problem}; install it and run again", file=sys.stderr)
                return 1
        print(f"making .venv with Python {sys.version.split()[0]}", flush=True)
        _run(sys.executable, "-m", "venv", "--clear", str(VENV))
    pip = (str(PYTHON), "-m", "pip", "--disable-pip-version-check", "--quiet")
    print("installing what requirements.lock names", flush=True)
    # The lock is complete, so nothing may be resolved beyond it; `pip check` proves that it is.
    _run(*pip, "install", "--require-hashes", "--no-deps", "-r", "requirements.lock")
    _run(*pip, "install", "--no-deps", "--no-build-isolation", "--editable", ".")
    _run(*pip, "check")
    _run(str(PYTHON), "-m", "control.web.install", "--optional")
    print("done: .venv/bin/afterlive --help", flush=True)
    return 0


def _works() -> bool:
    """Whether `.venv` is there and usable (it is not where the folder was moved or its Python removed)."""
    if not PYTHON.exists():
        return False
    probe = "import sys, pip; sys.exit(sys.version_info < (3, 11) or sys.prefix != sys.argv[1])"
    return subprocess.run([PYTHON, "-c", probe, VENV], capture_output=True, check=False).returncode == 0


def _run(*command: str) -> None:
    status = subprocess.run(command, cwd=ROOT, check=False).returncode
    if status:
        print(f"error: {' '.join(command[1:4])} … failed", file=sys.stderr)
        raise SystemExit(status)


if __name__ == "__main__":
    sys.exit(main())
