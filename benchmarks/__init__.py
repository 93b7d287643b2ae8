"""How fast it is, side by side: python -m benchmarks.speed. Skip them on a first reading."""

import sys

from support.machine.environment import require_packages
from support.run.console import exit_code
from support.run.signals import leave_on_signals

require_packages()


def run_benchmark(program, main):
    """Call a benchmark's main function as the command `program`; end the process with its exit code."""
    leave_on_signals("Interrupted")
    sys.exit(exit_code(program, main, {"--data_dir"}))
