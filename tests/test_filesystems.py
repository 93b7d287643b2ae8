"""File systems, outputs and networks that fail: whole runs, in which strace makes system calls fail."""

import errno
import os
import shutil
import signal
import socket
import subprocess
import sys

import pytest
from helpers import KMNIST, SMALL, contents
from processes import PATIENCE, command, endless, free_port, run_command, start_ranks

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")]

ONE = (*SMALL, "--epochs", 1)


def can_inject():
    """Whether strace is installed and may trace processes."""
    probe = ("strace", "--seccomp-bpf", "-f", "-o", "/dev/null", "true")
    return bool(shutil.which("strace")) and subprocess.run(probe, capture_output=True).returncode == 0


# REQUIRE_STRACE=1 makes a missing strace a failure.
needs_strace = pytest.mark.skipif(
    not os.environ.get("REQUIRE_STRACE") and not can_inject(), reason="needs strace: apt-get install strace"
)


def run_failing(call, failure, *flags, path=None):
    """Run main.py while a system call fails.

    Args:
        call: its name; a ? before a name that not every machine has.
        failure: such as EIO, or EIO:when=1..3.
        path: the file on which it fails; None for every one.
    """
    tracer = ["strace", "--seccomp-bpf", "-f", "-qq", "-o", "/dev/null", f"--trace={call}"]
    tracer += [f"--inject={call}:error={failure}"] + ([f"--trace-path={path}"] if path else [])
    return subprocess.run([*tracer, *command(*flags)], capture_output=True, text=True, timeout=PATIENCE)


@pytest.fixture(scope="module")
def undisturbed(small_mnist, tmp_path_factory):
    """The files of a run of one epoch. Read only."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert run_command(*KMNIST, "--data_dir", small_mnist, "--results_dir", folder, *ONE).returncode == 0
    return folder


@pytest.fixture
def flags(small_mnist, tmp_path):
    """The flags of a run of one epoch in an empty directory."""
    return (*KMNIST, "--data_dir", small_mnist, "--results_dir", tmp_path / "results", *ONE)


@needs_strace
@pytest.mark.parametrize("failure", ["EIO", "EINVAL", "EOPNOTSUPP"])
def test_run_is_complete_where_folders_cannot_be_synced(flags, undisturbed, tmp_path, failure):
    folder = tmp_path / "results"
    folder.mkdir()
    done = run_failing("fsync", failure, *flags, path=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert contents(folder).keys() == contents(undisturbed).keys()


@needs_strace
@pytest.mark.parametrize("failure", ["EINVAL", "EOPNOTSUPP"])
def test_run_is_complete_where_nothing_can_be_synced(flags, undisturbed, tmp_path, failure):
    done = run_failing("fsync", failure, *flags)
    assert (done.returncode, done.stderr) == (0, "")
    assert contents(tmp_path / "results").keys() == contents(undisturbed).keys()


@needs_strace
@pytest.mark.parametrize("failure", ["ENOLCK", "ENOSYS", "EOPNOTSUPP"])
def test_run_without_locks_warns_once(flags, undisturbed, tmp_path, failure):
    folder = tmp_path / "results"
    done = run_failing("flock", failure, *flags)
    assert done.returncode == 0
    assert done.stderr == f"WARNING: {folder} is on a file system without locks: start no second run there\n"
    assert contents(folder).keys() == contents(undisturbed).keys()


@needs_strace
def test_renames_refused_for_a_moment_succeed(flags, undisturbed, tmp_path):
    done = run_failing("rename", "EACCES:when=1..4", *flags)
    assert (done.returncode, done.stderr) == (0, "")
    assert contents(tmp_path / "results").keys() == contents(undisturbed).keys()


@needs_strace
@pytest.mark.parametrize("call", ["write", "fsync"])
@pytest.mark.parametrize("failure", ["ENOSPC", "EIO", "EDQUOT"])
def test_bytes_that_are_not_on_the_disk_are_an_error(flags, tmp_path, call, failure):
    folder = tmp_path / "results"
    folder.mkdir()
    done = run_failing(call, failure, *flags, path=folder / ".checkpoint.pt.part")
    reason = os.strerror(getattr(errno, failure))
    assert (done.returncode, done.stderr) == (1, f"main.py: error: {folder / 'checkpoint.pt'}: {reason}\n")
    assert contents(folder) == {}


@needs_strace
@pytest.mark.parametrize("name", ["checkpoint.pt", "best.pt", "latent/epoch_001.npy"])
def test_file_of_the_run_that_cannot_be_read_is_named(flags, undisturbed, tmp_path, name):
    folder = tmp_path / "results"
    shutil.copytree(undisturbed, folder)
    (folder / "manifold.png").unlink()  # so that the last pictures are made again
    done = run_failing("read", "EIO", *flags, path=folder / name)
    assert done.returncode == 1
    assert done.stderr.startswith(f"main.py: error: {folder}")
    assert done.stderr.count("\n") == 1
    assert "None" not in done.stderr


@needs_strace
def test_frame_that_cannot_be_read_costs_the_gif(flags, undisturbed, tmp_path):
    folder = tmp_path / "results"
    shutil.copytree(undisturbed, folder)
    (folder / "manifold.png").unlink()
    path = folder / "latent" / "epoch_001.png"
    done = run_failing("read", "EIO", *flags, path=path)
    assert done.returncode == 0
    assert done.stderr == f"WARNING: {path}: cannot be read as a picture; delete it, and repeat the command\n"
    assert (folder / "manifold.png").exists()


@needs_strace
@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_data_that_cannot_be_read_are_named(flags, small_mnist, name):
    done = run_failing("read", "EIO", *flags, path=small_mnist / "KMNIST" / "raw" / name)
    assert done.returncode == 1
    assert done.stderr.startswith(f"main.py: error: {small_mnist}")
    assert done.stderr.count("\n") == 1


@needs_strace
@pytest.mark.parametrize("failure", ["EIO", "ENOSPC", "EBADF"])
def test_standard_output_that_fails_is_named(flags, tmp_path, failure):
    with open(tmp_path / "log", "w") as log:
        tracer = ("strace", "--seccomp-bpf", "-f", "-qq", "-o", "/dev/null", "--trace=write")
        inject = (f"--inject=write:error={failure}", f"--trace-path={tmp_path / 'log'}")
        arguments = [*tracer, *inject, *command(*flags)]
        done = subprocess.run(arguments, stdout=log, stderr=subprocess.PIPE, text=True, timeout=PATIENCE)
    reason = os.strerror(getattr(errno, failure))
    assert (done.returncode, done.stderr) == (1, f"main.py: error: standard output: {reason}\n")


@pytest.mark.parametrize("closed", [(1,), (2,), (0, 1, 2)])
def test_run_with_closed_descriptors_is_complete(flags, undisturbed, tmp_path, closed):
    def close():
        for descriptor in closed:
            os.close(descriptor)

    done = run_command(*flags, preexec_fn=close)
    assert (done.returncode, done.stderr) == (0, "")
    assert contents(tmp_path / "results").keys() == contents(undisturbed).keys()


def test_help_to_full_disk_is_named():
    with open("/dev/full", "w") as full:
        done = run_command("--help", stdout=full)
    assert (done.returncode, done.stderr) == (1, "main.py: error: standard output: No space left on device\n")


def test_nohup_keeps_a_run_going(small_mnist, tmp_path):
    flags = (*KMNIST, "--data_dir", small_mnist, *SMALL, "--epochs", 2, "--results_dir", tmp_path)
    with subprocess.Popen(["nohup", *command(*flags)], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()  # it trains
        process.send_signal(signal.SIGHUP)
        process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert (tmp_path / "samples.png").exists()


def test_missing_network_interface_is_named(small_mnist, tmp_path, monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "no-such-interface")
    for process in start_ranks(2, *KMNIST, "--data_dir", small_mnist, *ONE, "--results_dir", tmp_path):
        errors = process.communicate(timeout=PATIENCE)[1]
        assert process.returncode == 1
        last = errors.splitlines()[-1]
        assert last.startswith("main.py: error: process ")
        assert "cannot join the others" in last
        assert "no-such-interface" in last
        assert "another process has ended" not in errors


def test_port_that_is_taken_is_named(small_mnist, tmp_path):
    port = free_port()
    flags = (*KMNIST, "--data_dir", small_mnist, *ONE, "--results_dir", tmp_path)
    variables = {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    with socket.create_server(("127.0.0.1", port)):
        done = run_command(*flags, env={**os.environ, **variables})
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert f"MASTER_PORT {port}: " in last
    assert "EADDRINUSE" in last


def test_run_in_the_background_of_a_script_ignores_ctrl_c(small_mnist, tmp_path):
    with endless(small_mnist, tmp_path, ignored=[signal.SIGINT]) as process:
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE)
    assert process.returncode == 143
