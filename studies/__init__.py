"""Questions answered by experiment, one script each: python -m studies.gap. Skip them on a first reading."""

from support.machine.environment import require_packages

require_packages()
