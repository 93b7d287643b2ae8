"""Signals at random moments of a run. `pytest -m long -s` prints how each one ended."""

import collections
import functools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch
from processes import INTERRUPTED, PATIENCE, ROOT, command, forks, is_running
from tqdm import tqdm

import explorer
import main
import pictures
import train
from support.run import checkpoint, report
from support.run.signals import leave_on_signals

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")

STAGES = {
    "start": (train, "begin"),
    "training": (train, "train_epoch"),
    "saving": (checkpoint, "save"),
    "pictures": (pictures, "write_epoch"),
    "page": (explorer, "write"),
    "log p(x)": (report, "show_end"),
}


@pytest.mark.slow
def test_hundred_signals_end_a_run_as_documented(tmp_path):
    signal_starting_commands(tmp_path, 10)
    for stage in STAGES:
        signal_copies(tmp_path / stage, stage, 17)


@pytest.mark.long
def test_three_hundred_signals_end_a_command_that_starts(tmp_path):
    signal_starting_commands(tmp_path, 300)


@pytest.mark.long
@pytest.mark.parametrize("stage", STAGES)
def test_ten_thousand_signals_end_a_run_as_documented(tmp_path, stage):
    signal_copies(tmp_path / "stage", stage, -(-10_000 // len(STAGES)))


def test_processes_that_a_shell_had_started_before_it_became_the_command_live_on():
    """As in a batch script: tensorboard & exec python main.py."""
    end = "from support.run.signals import *; leave_on_signals(''); leave(0)"
    script = f'sleep 600 >/dev/null & echo $!; exec {sys.executable} -c "{end}"'  # else it would hold the pipe open
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=PATIENCE)
    assert done.returncode == 0
    assert is_running(int(done.stdout))
    os.kill(int(done.stdout), signal.SIGTERM)


def signal_copies(folder, stage, signals):
    """Send SIGTERM to copies of a run in one of STAGES, at random moments, until so many have stopped one."""
    folder.mkdir()
    process = forks().Process(target=run_and_fork, args=(folder, stage, signals))
    process.start()
    process.join()
    assert process.exitcode == 0, (folder / "errors").read_text()
    check_endings(folder, stage, json.loads((folder / "endings").read_text()))


def check_endings(folder, stage, endings):
    """Assert that each signal stopped its run with 143 and the documented line, or came when that was done: 0.

    `endings` counts exit codes.
    """
    print(f"\n{stage}: {{exit code: times}} {endings}", flush=True)
    assert endings.keys() <= {"143", "0"}, endings
    assert (folder / "errors").read_text() == INTERRUPTED * endings["143"]


def signal_starting_commands(folder, n):
    """Send SIGTERM to n commands, each in its first three seconds."""
    rng = random.Random(0)
    endings = collections.Counter()
    for _ in range(n):
        flags = ("--dataset", "digits", "--results_dir", folder / "starts", "--epochs", 10**6)
        with open(folder / "errors", "a") as errors:
            process = subprocess.Popen(command(*flags), stdout=subprocess.DEVNULL, stderr=errors)
        time.sleep(3 * rng.random())
        process.terminate()
        endings[str(process.wait(PATIENCE))] += 1
    endings.pop("-15", None)  # before Python has read main.py
    assert endings["143"] > n / 2
    check_endings(folder, "first three seconds", endings)


def run_and_fork(folder, stage, n):
    """Run main.py on digits in this process; at a stage, fork and signal copies of it."""
    torch.set_num_threads(1)  # a copy has no other thread
    tqdm.set_lock(threading.RLock())
    os.dup2(os.open(folder / "errors", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    leave_on_signals(main.INTERRUPTED)
    endings = {}
    module, name = STAGES[stage]
    setattr(module, name, functools.partial(fork_and_call, getattr(module, name), endings, n))
    code = main.main(["--dataset", "digits", "--epochs", "1", "--results_dir", str(folder / "run")])
    (folder / "endings").write_text(json.dumps(endings))
    sys.exit(code)


def fork_and_call(function, endings, n, *arguments):
    """Call a function, but first in n copies of this process, each of which a SIGTERM ends at a random moment."""
    if "143" in endings:
        return function(*arguments)  # this is such a copy, or called again
    rng = random.Random(0)
    start = time.perf_counter()
    os.waitpid(forked(function, arguments), 0)
    seconds = time.perf_counter() - start
    endings["143"] = 0
    while endings["143"] < n:
        copy = forked(function, arguments)
        time.sleep(seconds * rng.random())
        os.kill(copy, signal.SIGTERM)
        code = str(os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1]))
        endings[code] = endings.get(code, 0) + 1
    return function(*arguments)


def forked(function, arguments):
    """The id of a copy of this process that calls a function and ends."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            function(*arguments)
            code = 0
        finally:
            os._exit(code)
    return pid
