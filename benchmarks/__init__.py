"""How fast it is, side by side: python -m benchmarks.speed. Skip them on a first reading."""

from support.machine.environment import require_packages

require_packages()
