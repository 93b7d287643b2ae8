"""What keeps a run fast, safe and reproducible: four rooms, of which a first reader needs none."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036  every command imports this file first
    sys.exit("error: Python 3.11 or later is needed, and this is Python " + sys.version.split()[0])
