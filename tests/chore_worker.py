"""`python -m tests.chore_worker worker fast` is `afterlive worker fast` with the tests' own tasks besides."""

from __future__ import annotations

import dataclasses
import sys

from control.bus.app import TIERS
from control.bus.names import CATALOGUE
from control.cli import main as afterlive
from tests import chores


def main() -> None:
    CATALOGUE.update({spec.name: spec for spec in chores.SPECS})
    for name, tier in TIERS.items():
        TIERS[name] = dataclasses.replace(tier, modules=(*tier.modules, chores.__name__))
    sys.argv[0] = "afterlive"
    afterlive()


if __name__ == "__main__":
    main()
