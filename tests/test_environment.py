"""Where a run finds itself: odd outputs, variables of other programs, file systems, GPUs and packages that fail."""

import builtins
import contextlib
import errno
import functools
import importlib
import io
import json
import os
import socket
import subprocess
import sys
import warnings
from importlib import metadata
from pathlib import Path

import matplotlib
import pytest
import torch
from helpers import SMALL, call_main, contents

import main
import pictures
import utils
from support.data import datasets
from support.errors import UserError, first_line, load_package, naming
from support.machine import arithmetic, devices, environment, processes
from support.run import console, report, storage

ONE = (*SMALL, "--epochs", 1)


class Stream:
    """A stream with nothing but write(), which fails with an error number, if there is one."""

    def __init__(self, number=None):
        self.number = number
        self.text = ""

    def write(self, text):
        if self.number:
            raise OSError(self.number, os.strerror(self.number))
        self.text += text


def call_with(out, err, *flags):
    """Call main.main with these streams as standard output and standard error. Returns the exit code."""
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        return main.main([str(flag) for flag in flags])


@pytest.fixture
def flags(small_mnist, tmp_path):
    """The flags of a run of one epoch in an empty directory."""
    return ("--data_dir", small_mnist, "--results_dir", tmp_path / "results", *ONE)


# Standard output


@pytest.mark.parametrize("stream", [io.StringIO, Stream])
def test_output_needs_nothing_but_write(flags, no_drawing, stream):
    out = stream()
    err = stream()
    assert call_with(out, err, *flags) == 0
    text, errors = (s.text if stream is Stream else s.getvalue() for s in (out, err))
    assert "====> Best epoch: 1 of 1" in text
    assert "error" not in errors


def test_run_without_output_streams_is_complete(flags, tmp_path, no_drawing):
    assert call_with(None, None, *flags) == 0
    assert (tmp_path / "results" / "samples.png").exists()


@pytest.mark.parametrize("number", [errno.EPIPE, errno.ENOSPC, errno.EIO, errno.EBADF, errno.EAGAIN, errno.ESTALE])
def test_output_that_fails_is_named_with_its_reason(flags, no_drawing, number):
    err = io.StringIO()
    assert call_with(Stream(number), err, *flags) == 1
    assert err.getvalue() == f"main.py: error: standard output: {os.strerror(number)}\n"


def test_closed_output_is_named(flags, no_drawing):
    out = io.StringIO()
    out.close()
    err = io.StringIO()
    assert call_with(out, err, *flags) == 1
    assert err.getvalue() == "main.py: error: standard output: I/O operation on closed file\n"


def test_failed_error_output_changes_no_exit_code(flags, no_drawing):
    closed = io.StringIO()
    closed.close()
    for err in (Stream(errno.EPIPE), closed):
        assert call_with(io.StringIO(), err, *flags, "--overwrite") == 0
        assert call_with(io.StringIO(), err, *flags, "--lr", 0.5) == 1


def test_help_to_full_output_is_named():
    err = io.StringIO()
    assert call_with(Stream(errno.ENOSPC), err, "--help") == 1
    assert err.getvalue() == f"main.py: error: standard output: {os.strerror(errno.ENOSPC)}\n"


def test_characters_that_output_cannot_encode_are_escaped():
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, "ascii")
    console.Output(stream).write("ä\ud800")
    assert raw.getvalue() == b"\\xe4\\ud800"


def test_streams_are_put_back(flags, no_drawing):
    out, err = sys.stdout, sys.stderr
    main.main([str(flag) for flag in flags])
    assert (sys.stdout, sys.stderr) == (out, err)


def test_progress_bar_is_shown_where_a_person_watches(flags, no_drawing, monkeypatch):
    err = io.StringIO()
    assert call_with(io.StringIO(), err, *flags) == 0
    assert err.getvalue() == ""
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.delenv("JPY_PARENT_PID", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert call_with(io.StringIO(), terminal, *flags, "--overwrite") == 0
    assert "batch/s" in terminal.getvalue()
    for name, value in (("TERM", "dumb"), ("JPY_PARENT_PID", "1")):  # an editor's shell; a notebook's !python main.py
        monkeypatch.setenv(name, value)
        saved = io.StringIO()
        saved.isatty = lambda: True
        assert call_with(io.StringIO(), saved, *flags, "--overwrite") == 0
        assert saved.getvalue() == ""
        monkeypatch.setenv("TERM", "xterm")


# Variables and files of other programs


@pytest.fixture
def torchrun(monkeypatch):
    """Set the variables of torchrun, changed or left out (None) by name: torchrun(RANK="1")."""

    def set_variables(**changes):
        variables = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "9"}
        for name, value in {**variables, **changes}.items():
            if value is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, value)

    return set_variables


def test_torchrun_is_known_by_all_its_variables(torchrun):
    torchrun()
    assert environment.find_world() == (1, 2)
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        for value in (None, ""):
            torchrun(**{name: value})
            assert environment.find_world() == environment.ALONE
    for name, value in (("RANK", "x"), ("RANK", "2"), ("WORLD_SIZE", "0"), ("MASTER_PORT", "tcp://10.0.0.1:80")):
        torchrun(**{name: value})
        assert environment.find_world() == environment.ALONE


ODD_ENVIRONMENTS = {
    "WORLD_SIZE alone": {"WORLD_SIZE": "4"},
    "WORLD_SIZE and RANK": {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "3"},
    "empty variables": dict.fromkeys(
        ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "VAE_DATA_DIR", "OMP_NUM_THREADS", "COLUMNS", "MPLBACKEND"),
        "",
    ),
    "notebook": {"MPLBACKEND": "module://matplotlib_inline.backend_inline"},
    "bars of tqdm": {"TQDM_DISABLE": "", "TQDM_MININTERVAL": "", "TQDM_NCOLS": "x"},
}


@pytest.mark.parametrize("name", ODD_ENVIRONMENTS)
def test_run_is_alone_and_complete_in_odd_environment(flags, no_drawing, monkeypatch, name):
    for variable, value in ODD_ENVIRONMENTS[name].items():
        monkeypatch.setenv(variable, value)
    done = call_main(*flags)
    assert (done.code, done.err) == (0, "")
    assert "====> Best epoch" in done.out


def test_what_others_would_misread_is_hidden_during_a_run_only(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "a backend of a notebook")
    monkeypatch.setenv("OMP_NUM_THREADS", " ")
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "")
    monkeypatch.setenv("MKL_NUM_THREADS", "3")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # this means something
    before = dict(os.environ)
    with environment.clean_environment():
        assert not {"MPLBACKEND", "OMP_NUM_THREADS", "LOKY_MAX_CPU_COUNT"} & os.environ.keys()
        assert os.environ["MKL_NUM_THREADS"] == "3"
        assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
    assert dict(os.environ) == before


def test_pictures_are_the_same_under_any_matplotlibrc(finished_run, run_main, tmp_path):
    odd = {"text.usetex": True, "font.size": 40.0, "figure.dpi": 30, "lines.linewidth": 9, "axes.grid": True}
    odd |= {"savefig.facecolor": "red", "figure.facecolor": "black", "text.color": "white", "font.family": ["cursive"]}
    for cached in (utils._latent_axes, utils._loss_axes):
        cached.cache_clear()
    with matplotlib.rc_context():
        matplotlib.style.use("dark_background")
        matplotlib.rcParams.update(odd)
        done = run_main(tmp_path, *finished_run.flags)
    for cached in (utils._latent_axes, utils._loss_axes):
        cached.cache_clear()
    assert done.code == 0, done.err
    expected = contents(finished_run.folder)
    pictures = [name for name in expected if name.endswith((".png", ".gif"))]
    found = contents(tmp_path)
    assert len(pictures) >= 10
    assert [name for name in pictures if found[name] != expected[name]] == []


# File systems


def failing(function, number, times=10**6, where=lambda *arguments: True):
    """A function like another, that fails with an error number the first times its arguments fulfil a condition."""
    calls = []

    def fail(*arguments, **options):
        if where(*arguments) and len(calls) < times:
            calls.append(arguments)
            raise OSError(number, os.strerror(number))
        return function(*arguments, **options)

    return fail


def is_folder(descriptor):
    """Whether a descriptor is of a folder."""
    return os.path.isdir(f"/proc/self/fd/{descriptor}")


needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")


@needs_linux
@pytest.mark.parametrize("number", [errno.EINVAL, errno.EIO, errno.ENOTSUP])
def test_folder_that_cannot_be_synced_stops_nothing(monkeypatch, tmp_path, number):
    monkeypatch.setattr(os, "fsync", failing(os.fsync, number, where=is_folder))
    storage.write(tmp_path / "file", b"content")
    assert contents(tmp_path) == {"file": b"content"}


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
def test_file_system_without_syncing_stops_nothing(monkeypatch, tmp_path, number):
    monkeypatch.setattr(os, "fsync", failing(os.fsync, number))
    storage.write(tmp_path / "file", b"content")
    assert contents(tmp_path) == {"file": b"content"}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, getattr(errno, "EDQUOT", errno.EFBIG)])
def test_bytes_that_cannot_be_synced_are_an_error(monkeypatch, tmp_path, number):
    (tmp_path / "file").write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", failing(os.fsync, number))
    with pytest.raises(OSError, match=os.strerror(number)) as error:
        storage.write(tmp_path / "file", b"new")
    assert error.value.filename == str(tmp_path / "file")
    assert contents(tmp_path) == {"file": b"old"}


def test_rename_refused_for_a_moment_is_tried_again(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "replace", failing(os.replace, errno.EACCES, times=3))
    storage.write(tmp_path / "file", b"content")
    assert contents(tmp_path) == {"file": b"content"}


def test_rename_refused_for_long_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setattr(storage, "RENAME_SECONDS", 0.1)
    monkeypatch.setattr(os, "replace", failing(os.replace, errno.EACCES))
    with pytest.raises(PermissionError) as error:
        storage.write(tmp_path / "file", b"content")
    assert error.value.filename == str(tmp_path / "file")
    assert contents(tmp_path) == {".file.part": b"content"}  # waits for the next chance


@pytest.mark.skipif(storage.fcntl is None, reason="Windows always has locks")
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP])
def test_file_system_without_locks_costs_a_warning(flags, no_drawing, monkeypatch, number):
    monkeypatch.setattr(storage.fcntl, "flock", failing(None, number))
    done = call_main(*flags)
    assert done.code == 0
    assert done.err.startswith("WARNING: ")
    assert done.err.endswith("is on a file system without locks: start no second run there\n")
    assert done.err.count("\n") == 1


def test_error_of_an_open_file_names_it(copied_run, run_main, monkeypatch):
    path = copied_run.folder / "checkpoint.pt"
    read_bytes = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", failing(read_bytes, errno.EIO, where=lambda file: file == path))
    done = run_main(copied_run.folder, *copied_run.flags)
    assert (done.code, done.err) == (1, f"main.py: error: {path}: {os.strerror(errno.EIO)}\n")


def test_error_of_the_data_names_their_folder(flags, small_mnist, monkeypatch):
    monkeypatch.setattr(datasets, "choose", failing(None, errno.EIO))
    done = call_main(*flags)
    assert (done.code, done.err) == (1, f"main.py: error: {small_mnist}: {os.strerror(errno.EIO)}\n")


def test_error_without_a_name_is_told_by_its_reason(flags, no_drawing, monkeypatch):
    monkeypatch.setattr(pictures, "write_last", failing(None, errno.EIO))
    done = call_main(*flags)
    assert (done.code, done.err) == (1, f"main.py: error: {os.strerror(errno.EIO)}\n")


def test_nearest_name_is_kept():
    with pytest.raises(OSError, match="text") as error, naming("far"), naming("near"):
        raise OSError("text")
    assert error.value.filename == "near"


# Processes


def test_second_task_of_srun_is_told_so(monkeypatch, tmp_path):
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    advice = "srun starts 2 tasks: use --ntasks=1"
    with storage.lock(tmp_path), pytest.raises(UserError, match=advice), storage.lock(tmp_path):
        pass


def test_unknown_address_of_the_others_is_named_at_once(flags, torchrun, monkeypatch):
    """A resolver that does not know it, simulated. PyTorch, which would wait for minutes, is not asked."""

    def fail(host, port):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    torchrun(RANK="0", LOCAL_RANK="0", MASTER_ADDR="no-such-host.invalid", MASTER_PORT="9")
    monkeypatch.setattr(socket, "getaddrinfo", fail)
    monkeypatch.setattr(torch.distributed, "rendezvous", lambda url: pytest.fail("it waits"))
    done = call_main(*flags, "--device", "cpu")
    place = "MASTER_ADDR no-such-host.invalid, MASTER_PORT 9"
    reason = f"process 0 cannot join the others at {place}: Name or service not known; check these"
    assert done.code == 1
    (line,) = done.err.splitlines()
    assert line.startswith(f"main.py: error: {reason}")


def test_process_that_died_is_told_apart(monkeypatch):
    with pytest.raises(RuntimeError, match="igloo"), processes.explain_lost_process():
        raise RuntimeError("cannot read igloo.png")  # of a process alone
    monkeypatch.setattr(processes, "size", lambda: 2)
    monkeypatch.setattr(processes, "rank", lambda: 0)
    with pytest.raises(UserError, match="another process has ended"), processes.explain_lost_process():
        raise RuntimeError("[/gloo/transport/tcp/pair.cc:1] Connection closed by peer [127.0.0.1]:1")


# GPUs


UNUSABLE = {
    "no kernel": RuntimeError("CUDA error: no kernel image is available for execution on the device\nSearch for it"),
    "full": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB."),
    "other build": AssertionError("Torch not compiled with CUDA enabled"),
}


@pytest.fixture(params=UNUSABLE)
def unusable_gpu(request, monkeypatch):
    """A GPU that is present, and fails at the first computation. Returns the first line of the reason."""

    def fail(device):
        raise UNUSABLE[request.param]

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(devices, "compute_on", fail)
    return str(UNUSABLE[request.param]).splitlines()[0]


def test_auto_takes_the_cpu_if_the_gpu_cannot_be_used(unusable_gpu, flags, no_drawing):
    done = call_main(*flags)
    assert done.code == 0
    assert done.err == f"WARNING: training on the CPU, as the GPU cannot be used: {unusable_gpu}\n"


def test_run_on_the_cpu_asks_no_gpu(unusable_gpu, flags, no_drawing):
    done = call_main(*flags, "--device", "cpu")  # Adam would ask it, were it not hidden
    assert (done.code, done.err) == (0, "")
    assert torch.cuda.is_available()


def test_gpu_asked_for_and_unusable_is_refused(unusable_gpu, flags):
    done = call_main(*flags, "--device", "cuda")
    assert done.code == 1
    assert done.err == f"main.py: error: --device cuda: {unusable_gpu}; use --device auto or cpu\n"


def test_one_of_several_processes_does_not_take_the_cpu_alone(unusable_gpu, torchrun):
    torchrun()
    with pytest.raises(UserError, match=r"process 1 cannot use its GPU .* use --device cpu"):
        devices.find_device("auto")


def test_driver_that_is_too_old_is_the_reason(monkeypatch, capsys):
    def find_none():
        warnings.warn("CUDA initialization: The NVIDIA driver on your system is too old\nmore", stacklevel=1)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", find_none)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"^--device cuda: CUDA initialization: The NVIDIA driver .* is too old; use "):
        devices.find_device("cuda")
    assert devices.find_device("auto").type == "cpu"
    assert capsys.readouterr().err.endswith("The NVIDIA driver on your system is too old\n")


def test_machine_without_gpu_says_nothing(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert devices.find_device("auto").type == "cpu"
    assert capsys.readouterr().err == ""
    with pytest.raises(UserError, match=r"^--device cuda: this machine, or this build of PyTorch, has none"):
        devices.find_device("cuda")


# Packages


@pytest.fixture
def missing(monkeypatch):
    """Make the import of a package fail, and its version unknown: missing("torchvision")."""
    version = metadata.version

    def block(package):
        for name in [package, *(name for name in sys.modules if name.startswith(f"{package}."))]:
            monkeypatch.setitem(sys.modules, name, None)

        def find_version(name):
            if name.replace("scikit-learn", "sklearn") == package:
                raise metadata.PackageNotFoundError(name)
            return version(name)

        monkeypatch.setattr(metadata, "version", find_version)
        report.installed_versions.cache_clear()

    yield block
    report.installed_versions.cache_clear()


def test_package_that_is_not_needed_may_be_missing(flags, tmp_path, no_drawing, missing):
    missing("torchvision")
    done = call_main(*flags)
    assert (done.code, done.err) == (0, "")
    config = json.loads((tmp_path / "results" / "config.json").read_text(encoding="utf-8"))
    assert "torchvision" not in config
    assert {"numpy", "torch", "matplotlib"} <= config.keys()


def test_torchvision_that_is_needed_is_named(flags, tmp_path, missing):
    missing("torchvision")
    (tmp_path / "empty").mkdir()
    done = call_main(*flags, "--dataset", "mnist", "--data_dir", tmp_path / "empty")
    assert done.code == 1
    assert done.err.count("\n") == 1
    assert "pip install torchvision" in done.err


@pytest.mark.parametrize(("module", "name"), [("sklearn", "scikit-learn"), ("PIL", "pillow"), ("imageio", "imageio")])
def test_missing_package_is_named_as_pip_calls_it(missing, module, name):
    missing(module)
    with pytest.raises(UserError, match=f"^the package {name} is not installed: pip install {name}$"):
        load_package(f"{module}.part")


BROKEN = {
    "library": ("sklearn", OSError("libgomp.so.1: cannot open shared object file"), "--force-reinstall scikit-learn"),
    "pair": ("torchvision", RuntimeError("operator torchvision::nms does not exist"), "reinstall torch torchvision"),
    "numpy": ("numpy", ImportError("\n\nIMPORTANT: numpy is broken\nmore"), "--force-reinstall numpy"),
    "limit": ("torch", MemoryError(), "reinstall torch torchvision"),
    "lzma": ("torchvision", ModuleNotFoundError("No module named '_lzma'", name="_lzma"), "built without lzma"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_package_that_cannot_be_loaded_is_named_with_its_reason(flags, monkeypatch, name):
    package, error, advice = BROKEN[name]

    def choose(*arguments):
        monkeypatch.setattr(importlib, "import_module", fail)
        load_package(package)

    def fail(module):
        raise error

    monkeypatch.setattr(datasets, "choose", choose)
    done = call_main(*flags)
    assert done.code == 1
    (line,) = done.err.splitlines()
    assert line.startswith("main.py: error: ")
    assert advice in line
    assert isinstance(error, ModuleNotFoundError) or first_line(error) in line


COMMANDS = (["main.py"], ["-m", "explorer", "results"], ["-m", "studies.gap"], ["-m", "benchmarks.speed"])


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_names_a_package_that_is_missing_or_broken(tmp_path, command):
    (tmp_path / "torch.py").write_text("raise OSError('libcudart.so.13: cannot open shared object file')")
    arguments = [sys.executable, *command]
    variables = {**os.environ, "PYTHONPATH": str(tmp_path)}
    root = Path(main.__file__).parent
    done = subprocess.run(arguments, cwd=root, env=variables, capture_output=True, text=True)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "error: torch is installed, but cannot be loaded here (libcudart.so.13: cannot open" in line
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nsys.version_info = (3, 10, 4)\nsys.version = '3.10.4 (main)'"
    )
    done = subprocess.run(arguments, cwd=root, env=variables, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "error: Python 3.11 or later is needed, and this is Python 3.10.4\n")


def test_missing_file_of_the_program_is_no_missing_package(flags, monkeypatch):
    monkeypatch.setitem(sys.modules, "explorer", None)
    with pytest.raises(ModuleNotFoundError):
        call_main(*flags)


# CPUs


def test_threads_are_as_many_as_this_process_may_use(monkeypatch):
    threads = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    for cpus, expected in ((2, 2), (64, 64), (100, 64)):
        monkeypatch.setattr(arithmetic, "usable_cpus", lambda cpus=cpus: cpus)
        with arithmetic.fast_arithmetic():
            assert threads.pop() == expected
        assert threads.pop() == 64, "what the caller had"
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    with arithmetic.fast_arithmetic():
        assert threads == []


@needs_linux
def test_cpus_are_those_of_affinity_and_quota(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setattr(os.path, "exists", lambda path, exists=os.path.exists: "cgroup" in str(path) or exists(path))
    for quota, expected in (("max 100000", 8), ("300000 100000", 3), ("20000 100000", 1)):
        opened = functools.partial(open_as, {"/sys/fs/cgroup/cpu.max": quota})
        monkeypatch.setattr(builtins, "open", opened)
        assert environment.usable_cpus() == expected


def open_as(contents, path, *arguments, open=open, **options):
    """open(), but some paths have these contents."""
    return io.StringIO(contents[path]) if path in contents else open(path, *arguments, **options)


# Windows


def test_text_files_are_opened_as_utf_8(flags, no_drawing, monkeypatch):
    """Elsewhere than on Linux, another encoding may be the default. Nothing else tells that one was left out."""
    monkeypatch.setattr(builtins, "open", with_encoding(open))
    monkeypatch.setattr(io, "open", with_encoding(io.open))
    done = call_main(*flags)
    assert done.code == 0, done.err


def with_encoding(function):
    """open(), which fails for text files without an encoding."""

    def checked(file, mode="r", buffering=-1, encoding=None, *arguments, **options):
        caller = Path(sys._getframe(1).f_code.co_filename)
        is_installed = "site-packages" in caller.parts
        is_pathlib = "pathlib" in (caller.stem, caller.parent.name)  # since Python 3.13, it is a package
        is_ours = is_pathlib or (Path(main.__file__).parent in caller.parents and not is_installed)
        assert not is_ours or "b" in mode or encoding not in (None, "locale"), f"{file} is opened without an encoding"
        return function(file, mode, buffering, encoding, *arguments, **options)

    return checked


def test_run_needs_nothing_that_windows_lacks(flags, no_drawing, monkeypatch):
    monkeypatch.setattr(storage, "fcntl", None)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "fork", failing(None, errno.ENOSYS), raising=False)
    done = call_main(*flags)
    assert (done.code, done.err) == (0, "")
