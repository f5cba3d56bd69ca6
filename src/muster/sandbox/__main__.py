"""`python -m muster.sandbox`: the same as `muster sandbox`."""

import sys

from muster.errors import Refusal
from muster.sandbox.cli import sandbox

try:
    sandbox(prog_name="muster sandbox")
except Refusal as refusal:
    print(f"muster: {refusal}", file=sys.stderr)
    sys.exit(2)
