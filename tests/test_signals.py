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
from processes import INTERRUPTED, PATIENCE, command, forks
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
    signal_again_and_again(tmp_path, signals=100, starts=10)


@pytest.mark.long
def test_ten_thousand_signals_end_a_run_as_documented(tmp_path):
    signal_again_and_again(tmp_path, signals=10_000, starts=300)


def signal_again_and_again(folder, signals, starts):
    """Send SIGTERM at random moments: to copies of a run in each of STAGES, and to commands that have just started."""
    endings = {"first three seconds of the command": starting_commands(folder, starts)}
    process = forks().Process(target=run_and_fork, args=(folder, -(-signals // len(STAGES))))
    process.start()
    process.join()
    assert process.exitcode == 0, (folder / "errors").read_text()
    endings |= json.loads((folder / "endings").read_text())
    print("\nwhere the signal came: {exit code: times}", json.dumps(endings, indent=1))
    left = sum(ends.pop("143") for ends in endings.values())
    default = endings["first three seconds of the command"].pop("-15", 0)  # before Python has read main.py
    assert all(ends.keys() <= {"0"} for ends in endings.values()), endings  # 0: it was done before
    assert left + default >= signals
    assert (folder / "errors").read_text() == INTERRUPTED * left


def starting_commands(folder, n):
    """How n commands end that get a SIGTERM in their first three seconds."""
    rng = random.Random(0)
    endings = collections.Counter()
    for _ in range(n):
        flags = ("--dataset", "digits", "--results_dir", folder / "starts", "--epochs", 10**6)
        with open(folder / "errors", "a") as errors:
            process = subprocess.Popen(command(*flags), stdout=subprocess.DEVNULL, stderr=errors)
        time.sleep(3 * rng.random())
        process.terminate()
        endings[str(process.wait(PATIENCE))] += 1
    return endings


def run_and_fork(folder, n):
    """Run main.py on digits in this process; at each of STAGES, fork and signal copies of it."""
    torch.set_num_threads(1)  # a copy has no other thread
    tqdm.set_lock(threading.RLock())
    os.dup2(os.open(folder / "errors", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    leave_on_signals(main.INTERRUPTED)
    endings = {}
    for stage, (module, name) in STAGES.items():
        function = getattr(module, name)
        setattr(module, name, functools.partial(fork_and_call, function, endings.setdefault(stage, {}), n))
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
