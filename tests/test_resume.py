"""Nothing that was computed is lost, and what is continued is the run that was interrupted."""

import contextlib
import errno
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import ROOT, contents, free_port, metrics, started
from PIL import Image
from test_model import Payload

import checkpoint
import main
import train
from model import VAE

SMALL = ("--hidden_dims", 16, "--batch_size", 64, "--log_interval", 1000)


@pytest.fixture
def run(small_mnist, tmp_path, capsys):
    """Run main.py's main here, writing to tmp_path / name; returns the exit code and the lines on stderr."""

    def call(*arguments, name="results"):
        handlers = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            argv = ["--data_dir", small_mnist, "--results_dir", tmp_path / name, *arguments]
            code = main.main([str(a) for a in argv])
        finally:
            for signum, handler in handlers.items():
                signal.signal(signum, handler)
        return code, capsys.readouterr().err.splitlines()

    return call


def equal(one, other):
    """Whether two checkpoints hold the same, tensors bit for bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


def transposed(state):
    """A model's state, its matrices transposed."""
    return {name: value.mT if value.dim() > 1 else value for name, value in state.items()}


def same(one, other):
    """Assert that two finished runs ended alike, bit for bit, but for how long they took."""
    saved = [torch.load(folder / "checkpoint.pt", weights_only=True) for folder in (one, other)]
    best = [torch.load(folder / "best.pt", weights_only=True) for folder in (one, other)]
    for value in saved[0]["history"] + saved[1]["history"] + best:
        value.pop("seconds")
    assert equal(*saved), "checkpoint.pt differs"
    assert equal(*best), "best.pt differs"
    rows = [[{**row, "seconds": None} for row in metrics(folder)] for folder in (one, other)]
    assert rows[0] == rows[1]
    pictures = [
        {path: content for path, content in contents(folder).items() if path.suffix in (".png", ".gif")}
        for folder in (one, other)
    ]
    assert pictures[0].keys() == pictures[1].keys()
    assert [path for path in pictures[0] if pictures[0][path] != pictures[1][path]] == []


@pytest.mark.parametrize("schedule", ["constant", "onecycle"])
def test_a_resumed_run_ends_as_one_never_interrupted(run, tmp_path, monkeypatch, schedule):
    flags = (*SMALL, "--schedule", schedule, "--epochs", 5)
    assert run(*flags, name="whole")[0] == 0

    def stop(folder, config, dataset, model, history, z, mu, draw=train.draw):
        draw(folder, config, dataset, model, history, z, mu)
        os.kill(os.getpid(), signal.SIGTERM) if len(history) == 3 else None

    with monkeypatch.context() as patch:
        patch.setattr(train, "draw", stop)
        code, errors = run(*flags)
    assert code == 143 and len(errors) == 1 and f"--resume --results_dir {tmp_path / 'results'}" in errors[0], errors
    assert "--epochs 5" in errors[0], "an extended run would be resumed to its old end"
    assert len(metrics(tmp_path / "results")) == 3
    assert run("--resume")[0] == 0
    same(tmp_path / "whole", tmp_path / "results")


def test_more_epochs_extend_a_finished_run(run, tmp_path):
    assert run(*SMALL, "--epochs", 4, name="whole")[0] == 0
    assert run(*SMALL, "--epochs", 2)[0] == 0
    assert run("--resume", "--epochs", 4)[0] == 0
    assert metrics(tmp_path / "results")[3]["test_total"] == metrics(tmp_path / "whole")[3]["test_total"]
    same(tmp_path / "whole", tmp_path / "results")


def test_best_pt_stays_with_the_best_epoch_when_later_ones_are_worse(run, tmp_path, monkeypatch):
    assert run(*SMALL, "--epochs", 2, name="until the best")[0] == 0
    seen = []

    def worse_at_last(model, images, evaluate=train.evaluate):
        bce, *rest = evaluate(model, images)
        seen.append(bce)
        return bce + 100 * (len(seen) > 2), *rest

    with monkeypatch.context() as patch:
        patch.setattr(train, "evaluate", worse_at_last)
        assert run(*SMALL, "--epochs", 4)[0] == 0
    folder = tmp_path / "results"
    assert min(metrics(folder), key=lambda row: float(row["test_total"]))["epoch"] == "2"
    wanted = torch.load(tmp_path / "until the best" / "checkpoint.pt", weights_only=True)["model"]
    assert equal(VAE.load(folder / "best.pt").state_dict(), wanted)
    assert run(*SMALL, "--epochs", 2, "--seed", 2, name="another")[0] == 0
    shutil.copy(tmp_path / "another" / "best.pt", folder)
    code, errors = run("--resume", "--epochs", 5)
    assert code == 1 and len(errors) == 1 and "best.pt is not of epoch 2" in errors[0], errors


def check_intact(folder):
    """Assert what holds at any moment: complete files under final names, which agree with the checkpoint."""
    saved = checkpoint.read(folder / "checkpoint.pt")
    if saved["epoch"] == 1 and not (folder / "metrics.csv").exists():
        return  # killed between the very first renames
    VAE.load(folder / "best.pt")
    rows = metrics(folder)
    # checkpoint.pt, best.pt and metrics.csv are renamed one after the other: in between, the last are an epoch behind.
    assert saved["epoch"] - len(rows) in (0, 1)
    for row, epoch in zip(rows, saved["history"], strict=False):
        assert row["test_total"] == f"{epoch['test_total']:.4f}"
    best = torch.load(folder / "best.pt", weights_only=True)["epoch"]
    bests = {checkpoint.best_of(saved["history"][:n])["epoch"] for n in {len(rows), saved["epoch"]}}
    assert best in bests
    for path in folder.rglob("*.png"):
        if not path.name.startswith("."):
            Image.open(path).load()


def kill_and_resume(small_mnist, tmp_path, kills, epochs):
    """Kill a run so many times, resuming it each time, and compare its end with that of an undisturbed one."""
    flags = ("--data_dir", small_mnist, *SMALL, "--epochs", epochs)
    whole = started(*flags, "--results_dir", tmp_path / "whole", log=tmp_path / "log")
    whole.join(300)
    assert whole.exitcode == 0, (tmp_path / "log").read_text()
    folder, rng, killed, torn = tmp_path / "killed", random.Random(0), 0, 0
    while killed < kills:
        resumed = ("--resume",) if (folder / "checkpoint.pt").exists() else ()
        (tmp_path / "log").write_text("")
        process = started(*flags, "--results_dir", folder, *resumed, log=tmp_path / "log")
        while process.is_alive() and "====> Test set" not in (tmp_path / "log").read_text():
            time.sleep(0.01)  # until it has trained an epoch: a slow start is no news
        process.join(rng.random() * 0.7)
        if process.exitcode is None:
            process.kill()
            process.join()
            killed += 1
            torn += bool(list(folder.rglob("*.part")))
        else:
            assert process.exitcode == 0, (tmp_path / "log").read_text()
            shutil.rmtree(folder)  # done before it was killed often enough: once more from the start
        if (folder / "checkpoint.pt").exists():
            check_intact(folder)
    resumed = ("--resume",) if (folder / "checkpoint.pt").exists() else ()
    last = started(*flags, "--results_dir", folder, *resumed, log=tmp_path / "log")
    last.join(300)
    assert last.exitcode == 0, (tmp_path / "log").read_text()
    same(tmp_path / "whole", folder)
    print(f"\n{killed} kills survived, {torn} of them in the middle of a write; same bits at the end")


def test_killed_ten_times_at_random_moments(small_mnist, tmp_path):
    kill_and_resume(small_mnist, tmp_path, kills=10, epochs=30)


@pytest.mark.long
def test_killed_a_hundred_times_at_random_moments(small_mnist, tmp_path):
    kill_and_resume(small_mnist, tmp_path, kills=100, epochs=300)


def ranks(n, *flags):
    """main.py as n processes that train together, started without torchrun."""
    environment = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(n)}
    return [
        subprocess.Popen(
            [sys.executable, ROOT / "main.py", *map(str, flags)],
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(n)
    ]


def wait_for(path, process):
    """Wait until the process has written the file."""
    deadline = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.05)


@contextlib.contextmanager
def endless(small_mnist, folder, *command):
    """A run of a million epochs that has finished its first, started by `command`."""
    flags = ("--data_dir", small_mnist, *SMALL, "--epochs", 10**6, "--results_dir", folder)
    command = [*map(str, (*(command or (sys.executable,)), ROOT / "main.py", *flags))]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        wait_for(folder / "metrics.csv", process)
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_run_in_order(small_mnist, tmp_path, signum, code):
    with endless(small_mnist, tmp_path) as process:
        process.send_signal(signum)
        errors = process.communicate(timeout=20)[1]
    assert process.returncode == code
    assert errors.count("\n") == 1 and f"--resume --results_dir {tmp_path}" in errors
    check_intact(tmp_path)


def test_a_second_ctrl_c_ends_at_once():
    """Where the first one cannot be heard: nothing looks at the list that the handler fills."""
    code = "import main, os, signal, time; main.listen(); print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        for _ in range(2):
            process.send_signal(signal.SIGINT)
            time.sleep(0.2)
        assert process.wait(5) == -signal.SIGINT


def test_ctrl_c_before_training_ends_at_once(tmp_path):
    code = "import main, data, sys, time; data.load = lambda *a, **k: (print(flush=True), time.sleep(60)); "
    code += f"sys.exit(main.main(['--results_dir', {str(tmp_path)!r}]))"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, text=True, **pipes) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        errors = process.communicate(timeout=5)[1]
    assert (process.returncode, errors) == (130, "Interrupted before training began\n")


def test_ctrl_c_during_the_last_pictures_is_not_taken_for_success(run, tmp_path, monkeypatch):
    """A loop over runs in a shell must end, too."""

    def signalled(*arguments, finish=train.finish):
        os.kill(os.getpid(), signal.SIGINT)
        finish(*arguments)

    monkeypatch.setattr(train, "finish", signalled)
    code, errors = run(*SMALL, "--epochs", 1)
    assert code == 130 and errors == ["Interrupted, but the run is complete"]
    assert (tmp_path / "results" / "samples.png").exists()


def test_torchrun_trains_together_and_leaves_nobody_behind(small_mnist, tmp_path):
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    with endless(small_mnist, tmp_path, *torchrun) as process:
        workers = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
        assert len(workers) >= 2
        process.send_signal(signal.SIGTERM)
        errors = process.communicate(timeout=60)[1]
    assert sum("continue with" in line for line in errors.splitlines()) == 1, errors
    assert not any(os.path.exists(f"/proc/{worker}") for worker in workers)
    check_intact(tmp_path)


def test_when_a_process_dies_the_others_say_so(small_mnist, tmp_path):
    """Without torchrun, which would end the others itself."""
    processes = ranks(2, "--data_dir", small_mnist, *SMALL, "--epochs", 10**6, "--results_dir", tmp_path)
    try:
        wait_for(tmp_path / "checkpoint.pt", processes[0])
        processes[1].kill()
        errors = processes[0].communicate(timeout=30)[1]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert processes[0].returncode == 1
    assert errors.count("\n") == 1 and "has ended or is out of reach" in errors, errors
    check_intact(tmp_path)


def test_two_processes_train_and_resume_as_one(small_mnist, tmp_path):
    flags = ("--data_dir", small_mnist, *SMALL, "--precision", "float32")
    for epochs, resume in ((2, ()), (4, ("--resume",))):
        for process in ranks(2, *flags, "--epochs", epochs, "--results_dir", tmp_path / "two", *resume):
            errors = process.communicate(timeout=60)[1]
            assert process.returncode == 0, errors
    with contextlib.redirect_stdout(None):
        assert main.main([str(a) for a in (*flags, "--epochs", 4, "--results_dir", tmp_path / "one")]) == 0
    for one, two in zip(metrics(tmp_path / "one"), metrics(tmp_path / "two"), strict=True):
        assert [float(one[name]) for name in checkpoint.LOSSES] == pytest.approx(
            [float(two[name]) for name in checkpoint.LOSSES], rel=1e-4
        )


def test_what_cannot_be_resumed_is_named_and_left_alone(run, tmp_path):
    code, errors = run("--resume", name="nothing")
    assert code == 1 and "no checkpoint" in errors[0] and not (tmp_path / "nothing").exists()
    assert run(*SMALL, "--epochs", 2)[0] == 0
    before = contents(tmp_path / "results")
    for flags, words in (
        (("--seed", 2, "--batch_size", 32), ("seed 1, not 2", "batch_size 64, not 32")),
        (("--dataset", "digits"), ("dataset mnist, not digits",)),
        (("--hidden_dims", 16, 8, "--latent_dim", 3), ("hidden_dims [16], not [16, 8]", "latent_dim 2, not 3")),
        (("--lr", 0.01, "--schedule", "onecycle"), ("lr 0.001, not 0.01", "schedule constant, not onecycle")),
        (("--epochs", 1), ("2 epochs",)),
    ):
        code, errors = run("--resume", *flags)
        assert code == 1 and len(errors) == 1 and all(word in errors[0] for word in words), errors
        assert contents(tmp_path / "results") == before


@pytest.mark.parametrize(
    "flags",
    [("--prior", "mixture"), ("--prior", "vamp"), ("--divergence", "mmd", "--divergence_weight", 100)],
    ids=["mixture", "vamp", "mmd"],
)
def test_a_run_with_another_prior_or_divergence_is_resumed_too(run, tmp_path, flags):
    flags = (*SMALL, *flags)
    assert run(*flags, "--epochs", 3, name="whole")[0] == 0
    assert run(*flags, "--epochs", 1)[0] == 0
    assert run("--resume", "--epochs", 3)[0] == 0
    whole, resumed = (torch.load(tmp_path / name / "checkpoint.pt")["model"] for name in ("whole", "results"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    for row in metrics(tmp_path / "results"):
        assert (row["test_kld"] == "") == ("mmd" in flags)
        weighted = (100 if "mmd" in flags else 1) * float(row["test_divergence"])
        assert float(row["test_total"]) == pytest.approx(float(row["test_bce"]) + weighted, abs=0.01)


def test_a_batch_of_one_image_has_no_mmd(run):
    for size in (1, 23):  # of 300 images, the last of 23 would be alone
        code, errors = run("--divergence", "mmd", "--batch_size", size)
        assert code == 1 and len(errors) == 1 and "--batch_size" in errors[0], errors


def test_what_does_not_go_with_the_mmd_is_refused(run, small_mnist, tmp_path):
    with pytest.raises(SystemExit, match="2"):
        main.parse(["--divergence", "mmd", "--prior", "vamp"])
    processes = ranks(2, "--data_dir", small_mnist, *SMALL, "--divergence", "mmd", "--results_dir", tmp_path / "two")
    for process in processes:
        errors = process.communicate(timeout=60)[1]
        assert process.returncode == 1 and errors.count("\n") == 1 and "in one process" in errors, errors


def test_a_schedule_that_has_ended_cannot_be_extended(run):
    assert run(*SMALL, "--epochs", 2, "--schedule", "onecycle")[0] == 0
    code, errors = run("--resume", "--epochs", 3)
    assert code == 1 and "onecycle" in errors[0]


@pytest.mark.parametrize("name", ["checkpoint.pt", "best.pt"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-1000]),
        lambda path: path.write_bytes((c := path.read_bytes())[: len(c) // 2] + b"\xff\0\xff" + c[len(c) // 2 + 3 :]),
        lambda path: path.write_bytes(b""),
        lambda path: torch.save({"config": {}, "epoch": 1}, path),
        lambda path: torch.save({"config": Payload(str(path.with_name("hacked")))}, path),
        lambda path: torch.save({**torch.load(path), "model": {}}, path),
        lambda path: torch.save({**(saved := torch.load(path)), "model": transposed(saved["model"])}, path),
    ],
    ids=["truncated", "altered", "empty", "another dict", "hostile", "no weights", "weights of other shapes"],
)
def test_a_damaged_file_is_refused_and_left_alone(run, tmp_path, name, damage):
    assert run(*SMALL, "--epochs", 1)[0] == 0
    damage(tmp_path / "results" / name)
    before = contents(tmp_path / "results")
    code, errors = run("--resume", "--epochs", 2)
    assert code == 1 and len(errors) == 1 and name in errors[0], errors
    assert contents(tmp_path / "results") == before


@pytest.mark.parametrize(
    ("place", "value"),
    [
        *((("history",), value) for value in (3, [], [3], [{}])),
        *((("config", "epochs"), value) for value in ("9", 0, None)),
        *((("config", name), 0) for name in ("batch_size", "log_interval", "latent_dim", "divergence_weight")),
        *((("config", name), value) for name in ("prior", "divergence") for value in ("other", [])),
        *((("config", "hidden_dims"), value) for value in (16, [0], [], ["x"])),
        *((("config", "seed"), -1), (("config", "lr"), float("nan")), (("config", "dataset"), "../x")),
        *((("config", "schedule"), []), (("history", 0, "more"), torch.zeros(2)), (("history", 0, "test_kld"), "7")),
        *((("epoch",), 7), (("optimizer",), {}), (("optimizer", "first"), []), (("model",), None)),
        *((("optimizer", "steps"), None), (("optimizer", "second", 0), torch.zeros(1))),
    ],
    ids=str,
)
def test_a_tampered_checkpoint_is_refused_and_left_alone(run, tmp_path, place, value):
    """One whose checksums are right, but which holds what no run would have written."""
    assert run(*SMALL, "--epochs", 1)[0] == 0
    path = tmp_path / "results" / "checkpoint.pt"
    saved = torch.load(path, weights_only=True)
    inner = saved
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    torch.save(saved, path)
    before = contents(tmp_path / "results")
    code, errors = run("--resume")
    assert code == 1 and len(errors) == 1 and "checkpoint.pt" in errors[0], errors
    assert contents(tmp_path / "results") == before


def test_an_unfinished_run_is_not_replaced_unasked(run, tmp_path):
    assert run(*SMALL, "--epochs", 1)[0] == 0
    path = tmp_path / "results" / "checkpoint.pt"
    saved = torch.load(path, weights_only=True)
    saved["config"]["epochs"] = 9
    torch.save(saved, path)
    before = contents(tmp_path / "results")
    code, errors = run(*SMALL, "--epochs", 1)
    assert code == 1 and "epoch 1 of 9" in errors[0] and "--resume" in errors[0] and "--overwrite" in errors[0]
    assert contents(tmp_path / "results") == before
    assert run(*SMALL, "--epochs", 1, "--overwrite")[0] == 0


@pytest.mark.parametrize("name", ["loss.png", "config.json", "latent/epoch_001.png"])
def test_a_file_of_somebody_elses_is_not_replaced_unasked(run, tmp_path, name):
    path = tmp_path / "results" / name
    path.parent.mkdir(parents=True)
    path.write_text('{"mine": true}')
    code, errors = run(*SMALL, "--epochs", 1)
    assert code == 1 and name in errors[0]
    assert path.read_text() == '{"mine": true}'


def test_clearing_leaves_what_a_run_does_not_write(run, tmp_path):
    assert run(*SMALL, "--epochs", 1)[0] == 0
    strangers = [tmp_path / "results" / name for name in ("latent/epoch_best.png", ".mine.part", "latent/.epoch.part")]
    for path in strangers:
        path.write_text("mine")
    left = tmp_path / "results" / "latent" / ".epoch_007.png.part"
    left.write_text("half a frame")
    assert run(*SMALL, "--epochs", 1)[0] == 0
    assert all(path.exists() for path in strangers) and not left.exists()


def test_a_run_that_fails_at_once_costs_nobody_a_finished_one(run, tmp_path):
    assert run(*SMALL, "--epochs", 1)[0] == 0
    before = contents(tmp_path / "results")
    assert run(*SMALL, "--epochs", 1, "--lr", 1e30)[0] == 1
    assert run(*SMALL, "--epochs", 1, "--hidden_dims", 10**9)[0] == 1
    assert contents(tmp_path / "results") == before


def test_a_run_that_cannot_save_its_first_epoch_costs_nobody_a_finished_one(run, tmp_path, monkeypatch):
    assert run(*SMALL, "--epochs", 3)[0] == 0
    before = contents(tmp_path / "results")

    def full(path, content, write=checkpoint.write):
        if path.name == "checkpoint.pt":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write", full)
        code, errors = run(*SMALL, "--epochs", 1, "--seed", 2)
    assert code == 1 and len(errors) == 1 and "No space left" in errors[0], errors
    assert contents(tmp_path / "results") == before


@pytest.mark.parametrize(("where", "what"), [(checkpoint, "clear"), (train, "draw")], ids=["clear", "draw"])
@pytest.mark.parametrize("latent_dim", [2, 3])
def test_a_run_killed_while_it_replaced_another_goes_on_as_itself(run, tmp_path, monkeypatch, where, what, latent_dim):
    flags = (*SMALL, "--epochs", 2, "--seed", 2, "--latent_dim", latent_dim)
    assert run(*flags, name="whole")[0] == 0
    assert run(*SMALL, "--epochs", 3)[0] == 0

    def killed(*arguments):
        raise OSError(errno.EIO, "killed here", "results")

    with monkeypatch.context() as patch:
        patch.setattr(where, what, killed)
        assert run(*flags)[0] == 1
    assert run("--resume", "--seed", 2)[0] == 0
    same(tmp_path / "whole", tmp_path / "results")
    assert contents(tmp_path / "whole").keys() == contents(tmp_path / "results").keys(), "a file of the other run"


def test_a_second_run_in_the_directory_is_refused(run, tmp_path):
    with checkpoint.locked(tmp_path / "results"):
        code, errors = run(*SMALL, "--epochs", 1)
    assert code == 1 and "another run" in errors[0]
    assert run(*SMALL, "--epochs", 1)[0] == 0


@pytest.mark.parametrize("limit", [100, 5_000, 20_000, 100_000], ids="{} bytes".format)
def test_a_full_disk_is_named_and_the_last_checkpoint_stays(small_mnist, tmp_path, limit):
    folder = tmp_path / "results"
    flags = ("--data_dir", small_mnist, *SMALL, "--hidden_dims", 64, "--results_dir", folder, "--epochs")
    first = started(*flags, 1, log=tmp_path / "log")
    first.join(60)
    assert first.exitcode == 0, (tmp_path / "log").read_text()
    before = (folder / "checkpoint.pt").read_bytes()
    second = started(*flags, 2, "--resume", log=tmp_path / "log", file_size=limit)
    second.join(60)
    last = (tmp_path / "log").read_text().splitlines()[-1]
    assert second.exitcode == 1
    if limit > 100:  # below that the message itself does not fit
        assert last.startswith(f"main.py: error: {folder}") and "too large" in last, last
    assert (folder / "checkpoint.pt").read_bytes() == before
    assert not list(folder.rglob("*.part"))
    third = started(*flags, 2, "--resume", log=tmp_path / "log")
    third.join(60)
    assert third.exitcode == 0, (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("redirection", "code", "message"),
    [
        (">/dev/full", 1, "main.py: error: standard output: No space left on device\n"),
        ("| true", 1, "main.py: error: standard output: Broken pipe\n"),
        (">&-", 0, ""),
    ],
)
def test_a_standard_output_that_is_full_or_closed(small_mnist, tmp_path, redirection, code, message):
    flags = ["--data_dir", small_mnist, *SMALL, "--epochs", 1, "--results_dir", tmp_path]
    command = shlex.join(map(str, [sys.executable, ROOT / "main.py", *flags]))
    command = f"({command}; echo $? >{tmp_path}/code) {redirection}"
    ended = subprocess.run(["bash", "-c", command], stderr=subprocess.PIPE, text=True, timeout=60)
    assert (int((tmp_path / "code").read_text()), ended.stderr) == (code, message)


def test_a_loss_that_is_not_finite_stops_the_run_before_it_is_saved(run, tmp_path, monkeypatch):
    assert run(*SMALL, "--epochs", 2)[0] == 0
    before = {name: (tmp_path / "results" / name).read_bytes() for name in ("checkpoint.pt", "best.pt", "metrics.csv")}

    def poisoned(*arguments, epoch_noise=train.epoch_noise):
        order, eps = epoch_noise(*arguments)
        eps[3 * 64 + 5] = torch.nan
        return order, eps

    monkeypatch.setattr(train, "epoch_noise", poisoned)
    code, errors = run("--resume", "--epochs", 3)
    assert code == 1 and len(errors) == 1 and "epoch 3, batch 4" in errors[0] and "--lr" in errors[0], errors
    assert {name: (tmp_path / "results" / name).read_bytes() for name in before} == before


def test_a_learning_rate_that_diverges_is_named(run):
    code, errors = run(*SMALL, "--epochs", 3, "--lr", 1e6)
    assert code == 1 and "not finite" in errors[0] and "--lr" in errors[0], errors


@pytest.mark.long
def test_five_hundred_epochs_keep_memory_files_and_threads_flat(tmp_path):
    """Samples /proc while 500 epochs on digits run."""
    command = [sys.executable, ROOT / "main.py", "--dataset", "digits", "--epochs", "500", "--results_dir", tmp_path]
    with subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, text=True) as process:
        samples = []
        for line in process.stdout:
            if line.startswith("====> Test set"):
                status = dict(
                    part.split(":", 1) for part in Path(f"/proc/{process.pid}/status").read_text().splitlines()
                )
                files = len(os.listdir(f"/proc/{process.pid}/fd"))
                samples.append((int(status["VmRSS"].split()[0]) // 1024, files, int(status["Threads"])))
    assert process.returncode == 0 and len(samples) == 500
    shown = {epoch: samples[epoch - 1] for epoch in (1, 20, 100, 200, 300, 400, 500)}
    print("\nepoch: (MB, open files, threads)", shown)
    memory, files, threads = zip(*samples[19:], strict=True)
    assert max(memory) - memory[0] < 30 and len(set(files)) == 1 and len(set(threads)) == 1, shown
