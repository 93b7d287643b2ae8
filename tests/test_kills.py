"""Runs that are killed at random moments, and a run of many epochs. `pytest -m long -s` prints the figures."""

import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import KMNIST, SMALL, assert_same_run
from processes import PATIENCE, check_intact, command, finish, start

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")

WAITING = 0.8  # the share of kills that come after an epoch, not while the run starts
AIMED = 0.5  # the share of kills that come as soon as a half-written file is seen
LONGEST = 0.7  # seconds from there to the kill, or to looking for such a file: two epochs or more


@pytest.mark.slow
def test_ten_kills_leave_the_undisturbed_run(small_mnist, tmp_path):
    kill_again_and_again(small_mnist, tmp_path, kills=10, epochs=30)


@pytest.mark.long
def test_hundred_kills_leave_the_undisturbed_run(small_mnist, tmp_path):
    kill_again_and_again(small_mnist, tmp_path, kills=100, epochs=300)


def kill_again_and_again(data_dir, tmp_path, kills, epochs):
    """Kill a run at random moments, each time starting the same command; its end is that of an undisturbed run."""
    log = tmp_path / "log"
    flags = (*KMNIST, "--data_dir", data_dir, *SMALL, "--epochs", epochs, "--results_dir")
    assert finish(*flags, tmp_path / "undisturbed", log=log) == 0, log.read_text()
    folder = tmp_path / "killed"
    rng = random.Random(0)
    killed = 0
    torn = 0
    while killed < kills:
        exit_code = start_and_kill(rng, flags, folder, log)
        check_intact(folder)
        if exit_code == 0:
            shutil.rmtree(folder)  # done before it was killed often enough: once more from the start
            continue
        assert exit_code == -9, log.read_text()
        killed += 1
        torn += any(folder.rglob(".*.part"))
    assert finish(*flags, folder, log=log) == 0, log.read_text()
    assert_same_run(tmp_path / "undisturbed", folder)
    print(f"\n{killed} kills survived, {torn} of them in the middle of a write; the end is the same, bit for bit")


def start_and_kill(rng, flags, folder, log):
    """Start a run, kill it at a random moment, and return its exit code: -9, or 0 if it was done before."""
    log.write_text("")
    process = start(*flags, folder, log=log)
    deadline = time.monotonic() + PATIENCE
    waits = rng.random() < WAITING
    aims = rng.random() < AIMED
    while waits and process.is_alive() and "====> Test set" not in log.read_text():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.01)
    process.join(rng.random() * LONGEST)
    while aims and process.is_alive() and not any(folder.rglob(".*.part")):
        assert time.monotonic() < deadline, log.read_text()
    process.kill()
    process.join()
    return process.exitcode


@pytest.mark.long
def test_five_hundred_epochs_keep_memory_files_and_threads_flat(tmp_path):
    samples = []
    flags = ("--dataset", "digits", "--epochs", 500, "--results_dir", tmp_path)
    with subprocess.Popen(command(*flags), stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line.startswith("====> Test set"):
                samples.append(resources(process.pid))
    assert process.returncode == 0
    assert len(samples) == 500
    shown = {epoch: samples[epoch - 1] for epoch in (1, 20, 100, 200, 300, 400, 500)}
    print("\nepoch: (MB, open files, threads)", shown)
    memory, files, threads = zip(*samples[19:], strict=True)
    assert max(memory) - memory[0] < 30, shown
    assert len(set(files)) == len(set(threads)) == 1, shown


def resources(pid):
    """The memory of a process in MB, and the numbers of its open files and threads."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    status = dict(line.split(":", 1) for line in lines)
    megabytes = int(status["VmRSS"].split()[0]) // 1024
    return megabytes, len(os.listdir(f"/proc/{pid}/fd")), int(status["Threads"])
