"""The command as its user meets it: a process that is stopped, killed, started twice, or joined by others."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from helpers import KMNIST, SMALL, metrics
from processes import (
    INTERRUPTED,
    PATIENCE,
    ROOT,
    TORCHRUN,
    check_intact,
    children,
    endless,
    finish,
    finished_epochs,
    is_running,
    run_command,
    start_ranks,
    wait_until,
    without_network,
)

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")]

SIGNALS = [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129), ("SIGUSR1", 138), ("SIGUSR2", 140), ("SIGXCPU", 152)]
LOSSES = ("train_bce", "train_kld", "train_total", "test_bce", "test_kld", "test_total")


def test_command_trains_and_repeated_says_that_it_is_done(small_mnist, tmp_path):
    flags = (*KMNIST, "--data_dir", small_mnist, "--epochs", 2)
    first = run_command(*flags, cwd=tmp_path)
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout.count("====> Test set") == 2
    names = ("checkpoint.pt", "best.pt", "metrics.csv", "config.json", "loss.png", "latent.gif", "manifold.png")
    names += ("samples.png", "explorer.html", "reconstruction/epoch_002.png", "latent/epoch_002.png")
    assert [name for name in names if not (tmp_path / "results" / name).exists()] == []
    second = run_command(*flags, cwd=tmp_path)
    assert (second.returncode, second.stderr) == (0, "")
    assert second.stdout == "All 2 epochs in results are done; --epochs extends the run\n"


def test_help_answers_without_importing_heavy_packages():
    code = "import main, sys\ntry: main.main(['--help'])\nfinally: print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0
    assert "--latent_dim" in done.stdout
    assert not {"torch", "numpy", "matplotlib", "sklearn"} & set(done.stderr.split())


@pytest.mark.parametrize(("name", "code"), SIGNALS)
def test_signal_ends_run_with_its_exit_code_and_a_line(small_mnist, tmp_path, name, code):
    with endless(small_mnist, tmp_path) as process:
        process.send_signal(getattr(signal, name))
        errors = process.communicate(timeout=PATIENCE)[1]
    assert (process.returncode, errors) == (code, INTERRUPTED)
    check_intact(tmp_path)


def test_signal_ignored_by_parent_stays_ignored(small_mnist, tmp_path):
    with endless(small_mnist, tmp_path, ignored=[signal.SIGHUP]) as process:
        process.send_signal(signal.SIGHUP)
        before = finished_epochs(tmp_path)
        wait_until(lambda: finished_epochs(tmp_path) > before + 1, process)
        process.send_signal(signal.SIGTERM)
        errors = process.communicate(timeout=PATIENCE)[1]
    assert (process.returncode, errors) == (143, INTERRUPTED)


@pytest.mark.parametrize(
    ("flags", "advice"), [((), ""), (("--overwrite",), " (without --overwrite, once an epoch is saved)")]
)
def test_ctrl_c_before_training_ends_with_a_line_and_no_child_is_left(tmp_path, flags, advice):
    """It comes in a callback of a weak reference, where Python drops exceptions; a child has a child of its own."""
    code = """
import runpy, subprocess, sys, time, weakref
from support.data import datasets

class Referent:
    pass

def wait(*arguments):
    child = subprocess.Popen(["sh", "-c", "sleep 600 & echo $! $$; wait"], stdout=subprocess.PIPE, text=True)
    print(child.stdout.readline(), end="", flush=True)
    time.sleep(600)

def choose(*arguments):
    referent = Referent()
    reference = weakref.ref(referent, wait)
    del referent

datasets.choose = choose
sys.argv[0] = "main.py"
runpy.run_path("main.py", run_name="__main__")
"""
    command = [sys.executable, "-c", code, "--results_dir", tmp_path, *flags]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        started = [int(pid) for pid in process.stdout.readline().split()]
        process.send_signal(signal.SIGINT)
        errors = process.communicate(timeout=PATIENCE)[1]
    assert (process.returncode, errors) == (130, INTERRUPTED.replace("\n", f"{advice}\n"))
    assert len(started) == 2
    assert not any(map(is_running, started))


def test_full_standard_output_is_named(small_mnist, tmp_path):
    flags = (*KMNIST, "--data_dir", small_mnist, *SMALL, "--epochs", 1, "--results_dir", tmp_path)
    with open("/dev/full", "w") as full:
        done = run_command(*flags, stdout=full)
    assert (done.returncode, done.stderr) == (1, "main.py: error: standard output: No space left on device\n")


def test_closed_pipe_as_standard_output_is_named(small_mnist, tmp_path):
    flags = (*KMNIST, "--data_dir", small_mnist, *SMALL, "--epochs", 1, "--results_dir", tmp_path)
    reader, writer = os.pipe()
    os.close(reader)
    done = run_command(*flags, stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "main.py: error: standard output: Broken pipe\n")


@pytest.mark.parametrize("limit", [5_000, 20_000, 100_000], ids="{} bytes".format)
def test_full_disk_is_named_and_last_checkpoint_stays(small_mnist, tmp_path, limit):
    folder = tmp_path / "results"
    log = tmp_path / "log"
    flags = (*KMNIST, "--data_dir", small_mnist, *SMALL, "--hidden_dims", 64, "--results_dir", folder, "--epochs")
    assert finish(*flags, 1, log=log) == 0, log.read_text()
    before = (folder / "checkpoint.pt").read_bytes()
    assert finish(*flags, 2, log=log, file_size=limit) == 1
    last = log.read_text().splitlines()[-1]
    assert last == f"main.py: error: {folder / 'checkpoint.pt'}: File too large"
    assert (folder / "checkpoint.pt").read_bytes() == before
    assert not list(folder.rglob(".*.part"))
    assert finish(*flags, 2, log=log) == 0, log.read_text()


def test_same_command_completes_run_whose_last_files_met_a_full_disk(small_mnist, tmp_path):
    log = tmp_path / "log"
    folder = tmp_path / "results"
    flags = (*KMNIST, "--data_dir", small_mnist, *SMALL, "--hidden_dims", 1, "--epochs", 1, "--results_dir", folder)
    assert finish(*flags, log=log, file_size=60_000) == 0, log.read_text()  # the network is small, the page is not
    assert f"WARNING: {folder / 'explorer.html'}: File too large; the run goes on" in log.read_text()
    check_intact(folder)
    assert finish(*flags, log=log) == 0, log.read_text()
    assert finished_epochs(folder) == 1
    assert (folder / "explorer.html").exists()


def test_second_run_in_a_directory_is_refused(small_mnist, tmp_path):
    flags = (*KMNIST, "--data_dir", small_mnist, *SMALL, "--results_dir", tmp_path)
    with endless(small_mnist, tmp_path) as process:
        second = run_command(*flags, "--overwrite")
        before = finished_epochs(tmp_path)
        wait_until(lambda: finished_epochs(tmp_path) > before, process)
    assert second.returncode == 1
    assert second.stderr == (
        f"main.py: error: another run is writing to {tmp_path}; wait for it, or name another --results_dir\n"
    )


def test_torchrun_stopped_continues_with_the_same_command(small_mnist, tmp_path):
    for _ in range(2):
        with endless(small_mnist, tmp_path, TORCHRUN) as process:
            workers = children(process.pid)
            process.send_signal(signal.SIGTERM)
            errors = process.communicate(timeout=PATIENCE)[1]
        assert errors.count(INTERRUPTED) == 1, errors
        assert len(workers) >= 2
        assert not any(map(is_running, workers))
        check_intact(tmp_path)


def test_torchrun_restarts_a_run_whose_process_was_killed(small_mnist, tmp_path):
    with endless(small_mnist, tmp_path, (*TORCHRUN, "--max_restarts=1")) as process:
        first, *_ = workers = children(process.pid)
        os.kill(workers[-1], signal.SIGKILL)
        wait_until(lambda: first not in children(process.pid), process)
        before = finished_epochs(tmp_path)
        wait_until(lambda: finished_epochs(tmp_path) > before, process)
    check_intact(tmp_path)


def test_processes_end_with_a_torchrun_that_is_killed(small_mnist, tmp_path):
    with endless(small_mnist, tmp_path, TORCHRUN) as process:
        workers = children(process.pid)
        process.kill()
        process.wait()
        deadline = time.monotonic() + PATIENCE
        while any(map(is_running, workers)):
            assert time.monotonic() < deadline, "they train on"
            time.sleep(0.05)
    check_intact(tmp_path)


def test_process_says_that_another_has_died(small_mnist, tmp_path):
    processes = start_ranks(2, *KMNIST, "--data_dir", small_mnist, *SMALL, "--epochs", 10**6, "--results_dir", tmp_path)
    try:
        wait_until(lambda: finished_epochs(tmp_path), processes[0])
        processes[1].kill()
        errors = processes[0].communicate(timeout=PATIENCE)[1]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert processes[0].returncode == 1
    assert errors == "main.py: error: process 0 stops: another process has ended or cannot be reached\n"
    check_intact(tmp_path)


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-4), ("bfloat16", 0.01)])
def test_two_processes_reproduce_the_single_process_losses(small_mnist, tmp_path, precision, tolerance):
    """The second command continues the run of the first. Only process 0 prints."""
    flags = (*KMNIST, "--data_dir", small_mnist, *SMALL, "--precision", precision, "--results_dir")
    for epochs, trained in ((2, "12"), (4, "34")):
        processes = start_ranks(2, *flags, tmp_path / "two", "--epochs", epochs, stdout=subprocess.PIPE)
        ends = [(*process.communicate(timeout=PATIENCE), process.returncode) for process in processes]
        assert [end[1:] for end in ends] == [("", 0)] * 2
        first, second = (out for out, *_ in ends)
        assert "".join(re.findall(r"^Train Epoch: (\d+) \[0/", first, re.MULTILINE)) == trained
        assert ("Continuing after epoch 2 of 4\n" in first) == (epochs == 4)
        assert second == ""
    assert finish(*flags, tmp_path / "one", "--epochs", 4, log=tmp_path / "log") == 0
    for one, two in zip(metrics(tmp_path / "one"), metrics(tmp_path / "two"), strict=True):
        assert [float(one[name]) for name in LOSSES] == pytest.approx(
            [float(two[name]) for name in LOSSES], rel=tolerance
        )


def test_mmd_in_two_processes_is_refused(small_mnist, tmp_path):
    flags = (*KMNIST, "--data_dir", small_mnist, *SMALL, "--divergence", "mmd", "--results_dir", tmp_path)
    for process in start_ranks(2, *flags):
        errors = process.communicate(timeout=PATIENCE)[1]
        assert process.returncode == 1
        errors = [line for line in errors.splitlines() if not line.startswith("WARNING: ")]
        assert len(errors) == 1
        assert "train it in one process" in errors[0]


def test_digits_stand_in_for_mnist_that_nobody_asked_for(tmp_path):
    flags = (*SMALL, "--epochs", 1, "--results_dir", tmp_path / "results")
    options = {
        "cwd": tmp_path,
        "env": {name: value for name, value in without_network().items() if name != "VAE_DATA_DIR"},
    }
    done = run_command(*flags, **options)
    assert done.returncode == 0, done.stderr
    assert "GOING ON WITH --dataset digits, NOT MNIST" in done.stderr
    assert json.loads((tmp_path / "results" / "config.json").read_text())["dataset"] == "digits"
    again = run_command(*flags, **options)
    assert again.returncode == 0, again.stderr
    assert again.stdout.startswith("All 1 epochs")


def test_missing_mnist_asked_for_by_name_is_refused(tmp_path):
    flags = ("--data_dir", tmp_path, "--dataset", "mnist", "--results_dir", tmp_path / "results")
    done = run_command(*flags, env=without_network())
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "mnist could not be downloaded (" in done.stderr
    assert "--data_dir" in done.stderr
