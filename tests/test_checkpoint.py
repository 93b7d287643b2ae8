"""The results directory: the same command continues, repeats or refuses, and nothing that was computed is lost."""

import csv
import errno
import io
import json
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import SMALL, assert_same_run, assert_same_saved, assert_same_training, call_main, contents, equal, metrics
from PIL import Image

import pictures
import train
import utils
from model import VAE
from support.data import datasets
from support.errors import UserError
from support.latent import likelihood
from support.run import checkpoint, files, report, storage
from support.run.config import Config, to_plain
from variants.schedules import make_scheduler

THREE = (*SMALL, "--epochs", 3)  # the flags of the finished run


def tables(folder):
    """The contents of a folder, and when each file was written."""
    return contents(folder), {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name != ".lock"}


def assert_refused(done, *words):
    """Assert that a command ended with exit code 1 and one line on stderr that holds these words."""
    assert done.code == 1, done.err
    assert done.err.startswith("main.py: error: ")
    assert done.err.count("\n") == 1
    for word in words:
        assert word in done.err


def interrupt_after(epoch, monkeypatch, name="show_epoch"):
    """Make Ctrl-C come at the end of a function, whose first argument is the run, once so many epochs are finished."""
    function = getattr(report, name)

    def interrupted(run, *arguments):
        result = function(run, *arguments)
        if len(run.history) == epoch:
            signal.raise_signal(signal.SIGINT)
        return result

    monkeypatch.setattr(report, name, interrupted)


def edited(path, change):
    """Change the dict in a file that torch.save wrote; its checksums are right afterwards."""
    saved = torch.load(path, weights_only=True)
    change(saved)
    torch.save(saved, path)


# The same command again


def test_same_command_again_says_done_and_changes_nothing(copied_run, run_main):
    before = tables(copied_run.folder)
    done = run_main(copied_run.folder, *THREE)
    assert done.code == 0
    assert done.out == f"All 3 epochs in {copied_run.folder} are done; --epochs extends the run\n"
    assert done.err == ""
    assert tables(copied_run.folder) == before


def test_flags_that_do_not_define_the_run_may_differ(copied_run, run_main):
    assert run_main(copied_run.folder, *THREE, "--log_interval", 1, "--device", "cpu").code == 0


@pytest.mark.parametrize("name", ["latent.gif", "manifold.png", "samples.png", "explorer.html"])
def test_missing_last_picture_is_made_again(finished_run, copied_run, run_main, name):
    (copied_run.folder / name).unlink()
    done = run_main(copied_run.folder, *THREE)
    assert done.code == 0
    assert "Train Epoch" not in done.out
    assert done.out.splitlines()[-2:-1] == finished_run.done.out.splitlines()[-2:-1]  # the best epoch
    assert_same_run(finished_run.folder, copied_run.folder)


def test_best_pt_that_was_deleted_is_written_again(finished_run, copied_run, run_main):
    (copied_run.folder / "best.pt").unlink()
    assert run_main(copied_run.folder, *THREE).code == 0
    assert_same_run(finished_run.folder, copied_run.folder)


def test_interrupted_run_continues_to_the_same_bits(finished_run, run_main, tmp_path, monkeypatch):
    folder = tmp_path / "results"
    with monkeypatch.context() as patch:
        interrupt_after(2, patch)
        with pytest.raises(KeyboardInterrupt):
            run_main(folder, *THREE)
    assert len(metrics(folder)) == 2
    assert not (folder / "samples.png").exists()
    done = run_main(folder, *THREE)
    assert done.code == 0, done.err
    assert done.out.splitlines()[1] == "Continuing after epoch 2 of 3"
    assert_same_run(finished_run.folder, folder)


@pytest.mark.parametrize("schedule", ["constant", "onecycle"])
def test_run_interrupted_within_an_epoch_continues_to_the_same_bits(
    run_main, tmp_path, monkeypatch, no_drawing, schedule
):
    flags = (*SMALL, "--epochs", 4, "--schedule", schedule)
    assert run_main(tmp_path / "undisturbed", *flags).code == 0
    for epoch in (1, 2, 3):
        with monkeypatch.context() as patch:
            interrupt_after(epoch, patch, "batch_line")  # after the first batch of the next one
            with pytest.raises(KeyboardInterrupt):
                run_main(tmp_path / "results", *flags)
        assert len(metrics(tmp_path / "results")) == epoch
    assert run_main(tmp_path / "results", *flags).code == 0
    assert_same_run(tmp_path / "undisturbed", tmp_path / "results")


def test_interruption_before_first_epoch_leaves_nothing_to_continue(run_main, tmp_path, monkeypatch, no_drawing):
    with monkeypatch.context() as patch:
        interrupt_after(0, patch, "batch_line")
        with pytest.raises(KeyboardInterrupt):
            run_main(tmp_path / "results", *THREE)
    assert contents(tmp_path / "results") == {}
    assert run_main(tmp_path / "results", *THREE).code == 0


def test_interruption_during_last_pictures_is_no_success(run_main, tmp_path, monkeypatch, no_drawing):
    with monkeypatch.context() as patch:
        patch.setattr(utils, "gif", lambda paths: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            run_main(tmp_path / "results", *THREE)
    assert len(metrics(tmp_path / "results")) == 3
    done = run_main(tmp_path / "results", *THREE)
    assert done.code == 0
    assert "Train Epoch" not in done.out
    assert (tmp_path / "results" / "samples.png").exists()


def test_more_epochs_extend_a_finished_run(finished_run, run_main, tmp_path, no_drawing):
    folder = tmp_path / "results"
    assert run_main(folder, *SMALL, "--epochs", 2).code == 0
    done = run_main(folder, *THREE)
    assert done.code == 0, done.err
    assert re.findall(r"^Train Epoch: (\d+)", done.out, re.MULTILINE) == ["3"]
    assert_same_training(finished_run.folder, folder)
    assert contents(folder).keys() == contents(finished_run.folder).keys()


@pytest.mark.parametrize("moment", ["after checkpoint.pt", "before the last pictures"])
def test_extension_that_is_killed_does_not_pass_for_finished(
    finished_run, run_main, tmp_path, monkeypatch, no_drawing, moment
):
    """The last pictures of the shorter run must not be taken for those of the longer one."""
    folder = tmp_path / "results"
    assert run_main(folder, *SMALL, "--epochs", 2).code == 0

    write = storage.write

    def killed(*arguments):
        raise KeyboardInterrupt

    def killed_after(path, content):
        write(path, content)
        if path.name == "checkpoint.pt" and len(checkpoint.load(path).history) == 3:
            killed()

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        if moment == "after checkpoint.pt":
            patch.setattr(storage, "write", killed_after)
        else:
            patch.setattr(pictures, "write_last", killed)
        run_main(folder, *THREE)
    assert "are done" not in run_main(folder, *THREE).out
    found, whole = contents(folder), contents(finished_run.folder)
    assert found.keys() == whole.keys()
    assert found["explorer.html"] == whole["explorer.html"]
    assert_same_saved(finished_run.folder, folder)


def test_seconds_of_finished_epochs_are_kept(copied_run, run_main, no_drawing):
    before = metrics(copied_run.folder)
    assert run_main(copied_run.folder, *SMALL, "--epochs", 4).code == 0
    assert metrics(copied_run.folder)[:3] == before


# Refusals


DIFFERENT = {
    "seed": (("--seed", 2), "--seed 1 there, 2 here"),
    "two flags": (("--lr", 0.01, "--batch_size", 32), "--batch_size 64 there, 32 here; --lr 0.001 there, 0.01 here"),
    "network": (("--hidden_dims", 16, 8, "--latent_dim", 3), "--latent_dim 2 there, 3 here; --hidden_dims 16 there"),
    "dataset": (("--dataset", "digits"), "--dataset mnist there, digits here"),
    "prior": (("--prior", "vamp"), "--prior normal there, vamp here"),
    "schedule": (("--schedule", "onecycle"), "--schedule constant there, onecycle here"),
    "fewer epochs": (("--epochs", 2), "3 finished epochs: name --epochs 3 or more"),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_other_settings_are_refused_by_name(copied_run, run_main, name):
    flags, words = DIFFERENT[name]
    before = tables(copied_run.folder)
    done = run_main(copied_run.folder, *THREE, *flags)
    assert_refused(done, words, "--overwrite", "another --results_dir")
    assert ("continue it with --resume" in done.err) == (name != "fewer epochs")
    assert tables(copied_run.folder) == before


FITS = {
    "lr": (("--lr", 0.01), ["--lr 0.01 in place of 0.001"]),
    "schedule": (("--schedule", "onecycle"), ["--epochs 5 in place of 3", "--schedule onecycle in place of constant"]),
    "batch size": (("--batch_size", 50), ["--batch_size 50 in place of 64"]),
    "seed": (("--seed", 2), ["--seed 2 in place of 1"]),
    "dataset": (("--dataset", "digits"), ["--dataset digits in place of mnist"]),
    "dropout": (("--input_dropout", 0.5), ["--input_dropout 0.5 in place of 0.0"]),
    "precision": (("--precision", "bfloat16"), ["--precision bfloat16 in place of float32"]),
    "components": (("--prior_components", 3), ["--prior_components 3 in place of 10"]),
    "weight": (("--divergence_weight", 2), ["--divergence_weight 2.0 in place of 1.0"]),
}


@pytest.mark.parametrize("name", FITS)
def test_resume_goes_on_with_what_is_named_and_says_so(copied_run, run_main, no_drawing, name):
    flags, changes = FITS[name]
    if name == "precision":
        edited(copied_run.folder / "checkpoint.pt", put("config", "precision", "float32"))
    done = run_main(copied_run.folder, "--resume", "--epochs", 5, *flags)
    assert done.code == 0, done.err
    assert [line for line in done.out.splitlines() if line.startswith("Continuing with")] == [
        f"Continuing with {change}" for change in changes
    ]
    assert [row["epoch"] for row in metrics(copied_run.folder)] == ["1", "2", "3", "4", "5"]
    assert run_main(copied_run.folder, "--resume", "--epochs", 5).out.count("Continuing") == 0  # they are the run's own


UNFIT = {
    "widths": (("--hidden_dims", 16, 8), "--hidden_dims 16 there, 16 8 here"),
    "latents": (("--latent_dim", 3, "--lr", 0.1), "do not fit --latent_dim 2 there, 3 here:"),
    "prior": (("--prior", "vamp"), "--prior normal there, vamp here"),
    "divergence": (("--divergence", "mmd"), "--divergence kl there, mmd here"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_resume_refuses_by_name_what_does_not_fit_the_weights(copied_run, run_main, name):
    flags, words = UNFIT[name]
    before = tables(copied_run.folder)
    done = run_main(copied_run.folder, "--resume", "--epochs", 5, *flags)
    assert_refused(done, words, "leave these flags out", "--overwrite", "--results_dir")
    assert tables(copied_run.folder) == before


@pytest.mark.parametrize("schedule", ["constant", "onecycle"])
def test_new_learning_rate_is_that_of_a_run_with_it_at_this_step(run_main, tmp_path, no_drawing, schedule):
    """5 batches per epoch."""
    flags = (*SMALL, "--schedule", schedule)
    assert run_main(tmp_path, *flags, "--epochs", 2).code == 0
    assert run_main(tmp_path, "--resume", "--epochs", 3, "--lr", 1e-5).code == 0
    optimizer = torch.optim.Adam([torch.zeros(1, requires_grad=True)], 1e-5)
    scheduler = make_scheduler(Config(schedule=schedule, lr=1e-5), optimizer, 15)
    for _ in range(15):
        optimizer.step()
        scheduler.step()
    saved = checkpoint.load(tmp_path / "checkpoint.pt")
    assert saved.optimizer["param_groups"][0]["lr"] == pytest.approx(optimizer.param_groups[0]["lr"])
    assert saved.scheduler["last_epoch"] == 15


def test_onecycle_run_is_extended_only_by_resume(run_main, tmp_path, no_drawing):
    folder = tmp_path / "results"
    flags = (*SMALL, "--schedule", "onecycle")
    assert run_main(folder, *flags, "--epochs", 1).code == 0
    before = tables(folder)
    assert_refused(run_main(folder, *flags, "--epochs", 2), "--epochs 1 there, 2 here")
    assert tables(folder) == before
    done = run_main(folder, *flags, "--epochs", 2, "--resume")
    assert done.code == 0
    assert "Continuing with --epochs 2 in place of 1" in done.out
    assert_refused(run_main(folder, *flags, "--epochs", 1), "--epochs 2 there, 1 here", "--resume")
    assert_refused(run_main(folder, *flags, "--epochs", 1, "--resume"), "name --epochs 2 or more")


def test_other_code_is_refused_unless_resumed(finished_run, copied_run, run_main, monkeypatch):
    monkeypatch.setattr(checkpoint, "fingerprint", lambda: "other")
    before = tables(copied_run.folder)
    assert_refused(run_main(copied_run.folder, *THREE), "other code", "--overwrite", "--results_dir", "--resume")
    assert tables(copied_run.folder) == before
    done = run_main(copied_run.folder, "--resume")
    assert done.code == 0
    assert done.err == "WARNING: the code has changed since this run began; the result may differ\n"
    assert "are done" in done.out
    again = run_main(copied_run.folder, *THREE)
    assert (again.code, again.err) == (0, "")
    assert metrics(copied_run.folder) == metrics(finished_run.folder)


def test_fingerprint_changes_with_any_line_of_the_code(tmp_path, monkeypatch):
    sources = [path for pattern in checkpoint.ARITHMETIC for path in checkpoint.ROOT.glob(pattern)]
    for path in sources:
        copy = tmp_path / path.relative_to(checkpoint.ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    monkeypatch.setattr(checkpoint, "ROOT", tmp_path)
    digests = {checkpoint.fingerprint()}
    for path in tmp_path.rglob("*.py"):
        with open(path, "a") as file:
            file.write("# a comment\n")
        checkpoint.fingerprint.cache_clear()
        digests.add(checkpoint.fingerprint())
    checkpoint.fingerprint.cache_clear()
    assert len(digests) == 1 + len(sources)


def test_fingerprint_covers_what_decides_the_arithmetic():
    covered = {path.name for pattern in checkpoint.ARITHMETIC for path in checkpoint.ROOT.glob(pattern)}
    variants = {"__init__.py", "priors.py", "wae.py", "schedules.py", "images.py", "whole_files.py"}
    variants |= {"binary.py", "digits.py"}
    machine = {"arithmetic.py", "compiled.py", "processes.py", "steps.py"}
    assert covered == {"model.py", "train.py", "seeds.py", "datasets.py"} | machine | variants


@pytest.mark.parametrize(
    "name", ["loss.png", "config.json", "best.pt", "explorer.html", "latent/epoch_001.png", "latent/epoch_1000.npy"]
)
def test_foreign_file_is_refused_by_name(run_main, tmp_path, name):
    path = tmp_path / "results" / name
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    assert_refused(run_main(tmp_path / "results", *THREE), str(path), "--overwrite", "--results_dir")
    assert contents(tmp_path / "results") == {name: b"mine"}


@pytest.mark.parametrize("place", ["file", "file/results"])
def test_results_dir_that_is_no_directory_is_refused(run_main, tmp_path, place):
    (tmp_path / "file").write_text("mine")
    assert_refused(run_main(tmp_path / place, *THREE), str(tmp_path / place), "another --results_dir")
    assert (tmp_path / "file").read_text() == "mine"


def test_second_run_in_directory_is_refused(copied_run, run_main, no_drawing):
    before = tables(copied_run.folder)
    with storage.lock(copied_run.folder):
        assert_refused(run_main(copied_run.folder, *SMALL, "--epochs", 4), "another run is writing to")
    assert tables(copied_run.folder) == before
    assert run_main(copied_run.folder, *SMALL, "--epochs", 4).code == 0


# --resume and --overwrite


def test_resume_keeps_flags_that_are_not_named(finished_run, run_main, tmp_path, no_drawing):
    folder = tmp_path / "results"
    assert run_main(folder, *SMALL, "--epochs", 2).code == 0
    done = run_main(folder, "--resume", "--epochs", 3)
    assert done.code == 0, done.err
    assert_same_training(finished_run.folder, folder)
    assert json.loads((folder / "config.json").read_text())["hidden_dims"] == [16]


def test_resume_continues_an_interrupted_run_to_its_end(finished_run, run_main, tmp_path, monkeypatch, no_drawing):
    folder = tmp_path / "results"
    with monkeypatch.context() as patch:
        interrupt_after(1, patch)
        with pytest.raises(KeyboardInterrupt):
            run_main(folder, *THREE)
    assert run_main(folder, "--resume").code == 0
    assert_same_training(finished_run.folder, folder)


def test_resume_works_in_a_moved_folder(copied_run, run_main, no_drawing):
    moved = copied_run.folder.rename(copied_run.folder.with_name("elsewhere"))
    assert run_main(moved, "--resume", "--epochs", 4).code == 0
    assert len(metrics(moved)) == 4
    assert not copied_run.folder.exists()


def test_overwrite_replaces_the_run_and_leaves_no_file_of_it(copied_run, run_main, no_drawing):
    folder = copied_run.folder
    own = {"notes.txt": b"mine", "latent/epoch_best.png": b"mine", ".mine.part": b"mine", "latent/mine.png": b"mine"}
    for name, content in own.items():
        (folder / name).write_bytes(content)
    (folder / "latent" / ".epoch_007.png.part").write_text("half a frame")
    done = run_main(folder, *SMALL, "--epochs", 1, "--latent_dim", 3, "--overwrite")
    assert done.code == 0, done.err
    frames = {"reconstruction/epoch_001.png", *(f"latent/epoch_001.{suffix}" for suffix in ("png", "npy", "npz"))}
    pictures = {"loss.png", "latent.gif", "manifold.png", "samples.png"}
    others = {"config.json", "metrics.csv", "best.pt", "checkpoint.pt"}
    found = contents(folder)
    assert found.keys() == frames | pictures | others | own.keys()
    assert {name: found[name] for name in own} == own
    assert len(metrics(folder)) == 1
    assert json.loads((folder / "config.json").read_text())["latent_dim"] == 3


@pytest.mark.slow
@pytest.mark.parametrize(("module", "name"), [(files, "clear"), (checkpoint, "metrics_csv")])
def test_run_killed_while_it_replaces_another_continues_as_itself(
    copied_run, run_main, tmp_path, monkeypatch, no_drawing, module, name
):
    flags = (*SMALL, "--epochs", 2, "--seed", 2, "--latent_dim", 3)
    assert run_main(tmp_path / "undisturbed", *flags).code == 0

    def killed(*arguments, **options):
        raise OSError(errno.EIO, "killed here", "somewhere")

    with monkeypatch.context() as patch:
        patch.setattr(module, name, killed)
        assert run_main(copied_run.folder, *flags, "--overwrite").code == 1
    assert run_main(copied_run.folder, *flags).code == 0
    assert_same_run(tmp_path / "undisturbed", copied_run.folder)


# Nothing that was computed is lost


FAILED_STARTS = {
    "loss not finite": (("--lr", 1e30), "not finite"),
    "batch without MMD": (("--divergence", "mmd", "--batch_size", 23), "--batch_size"),
    "no data": (("--dataset", "fashion_mnist"), "fashion_mnist"),
}


@pytest.mark.parametrize("name", FAILED_STARTS)
def test_failed_start_keeps_finished_run(copied_run, run_main, monkeypatch, name):
    flags, words = FAILED_STARTS[name]
    monkeypatch.setattr("support.data.download._fetch", lambda *where: "no network")
    before = tables(copied_run.folder)
    assert_refused(run_main(copied_run.folder, *THREE, *flags, "--overwrite"), words)
    assert tables(copied_run.folder) == before


def full_disk(name, monkeypatch):
    """Make the disk full for a file of this name."""
    write = storage.write

    def refuse(path, content):
        if path.name == name:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, content)

    monkeypatch.setattr(storage, "write", refuse)


def test_run_that_cannot_save_its_first_epoch_keeps_finished_run(copied_run, run_main, monkeypatch):
    before = tables(copied_run.folder)
    full_disk("checkpoint.pt", monkeypatch)
    done = run_main(copied_run.folder, *THREE, "--seed", 2, "--overwrite")
    assert done.err == f"main.py: error: {copied_run.folder / 'checkpoint.pt'}: No space left on device\n"
    assert tables(copied_run.folder) == before


def test_run_that_cannot_save_its_best_epoch_ends(run_main, tmp_path, monkeypatch, no_drawing):
    full_disk("best.pt", monkeypatch)
    done = run_main(tmp_path, *THREE)
    assert (done.code, done.err) == (1, f"main.py: error: {tmp_path / 'best.pt'}: No space left on device\n")


def test_table_of_the_last_epoch_that_could_not_replace_the_one_before_is_written_by_the_same_command(
    finished_run, run_main, tmp_path, monkeypatch, no_drawing
):
    folder = tmp_path / "results"
    assert run_main(folder, *SMALL, "--epochs", 2).code == 0
    with monkeypatch.context() as patch:
        full_disk("metrics.csv", patch)
        assert run_main(folder, *THREE).code == 0
    assert len(metrics(folder)) == 2
    assert run_main(folder, *THREE).code == 0
    assert len(metrics(folder)) == 3
    assert "are done" in run_main(folder, *THREE).out


def test_old_picture_that_cannot_be_removed_costs_a_warning(copied_run, run_main, monkeypatch, no_drawing):
    unlink = Path.unlink

    def refuse(path, missing_ok=False):
        if path.name == "manifold.png":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)
    done = run_main(copied_run.folder, *SMALL, "--epochs", 1, "--seed", 2, "--overwrite")
    assert done.code == 0
    assert f"WARNING: {copied_run.folder / 'manifold.png'} is out of date, and cannot be removed" in done.err
    assert len(metrics(copied_run.folder)) == 1


def test_missing_memory_is_no_damage(copied_run, run_main, monkeypatch):
    def load(*arguments, **options):
        raise MemoryError

    monkeypatch.setattr(torch, "load", load)
    assert_refused(run_main(copied_run.folder, *THREE), "not enough memory")


@pytest.mark.parametrize("name", ["epoch_002.png", "metrics.csv", "loss.png", "config.json", "latent.gif"])
def test_file_that_cannot_be_written_costs_a_warning_and_no_epoch(
    finished_run, run_main, tmp_path, monkeypatch, no_drawing, name
):
    folder = tmp_path / "results"
    with monkeypatch.context() as patch:
        full_disk(name, patch)
        done = run_main(folder, *THREE)
    assert done.code == 0
    assert f"{name}: No space left on device; the run goes on" in done.err
    assert_same_saved(finished_run.folder, folder)
    if name in files.FILES:
        assert run_main(folder, *THREE).code == 0  # the next chance
        assert contents(folder).keys() == contents(finished_run.folder).keys()


def test_table_that_a_viewer_holds_open_is_written_at_the_next_start(
    finished_run, run_main, tmp_path, monkeypatch, no_drawing
):
    folder = tmp_path / "results"
    assert run_main(folder, *SMALL, "--epochs", 2).code == 0
    monkeypatch.setattr(storage, "RENAME_SECONDS", 0)
    rename = storage.rename

    def refuse(part, path):
        if path.name == "metrics.csv":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        rename(part, path)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "rename", refuse)
        done = run_main(folder, *THREE)
    assert done.code == 0
    assert f"WARNING: {folder / 'metrics.csv'}: Permission denied; the run goes on" in done.err
    assert len(metrics(folder)) == 2
    assert run_main(folder, *THREE).code == 0
    assert len(metrics(folder)) == 3
    assert_same_training(finished_run.folder, folder)


def test_loss_that_is_not_finite_keeps_what_was_saved(copied_run, run_main, monkeypatch, no_drawing):
    paths = [copied_run.folder / name for name in ("checkpoint.pt", "best.pt")]
    before = [checkpoint.read(path) for path in paths]
    monkeypatch.setattr(train, "choose_step", lambda *choice: lambda *batch: torch.tensor([torch.inf, 1.0]))
    done = run_main(copied_run.folder, *SMALL, "--epochs", 4)
    assert_refused(done, "not finite in epoch 4, batch 1", "lower --lr", "add --resume to go on from epoch 3")
    after = [checkpoint.read(path) for path in paths]
    assert equal(*([saved["model"] for saved in both] for both in (before, after)))
    assert after[0]["history"] == before[0]["history"]
    assert len(metrics(copied_run.folder)) == 3


def test_learning_rate_that_diverges_is_named(run_main, tmp_path, no_drawing):
    done = run_main(tmp_path / "results", *THREE, "--lr", 1e30)
    assert_refused(done, "not finite in epoch 1", "lower --lr")
    assert "--resume" not in done.err  # no epoch is finished
    assert run_main(tmp_path / "results", *THREE, "--lr", 1e-3).code == 0


def test_write_replaces_whole_files_and_leaves_no_part(tmp_path, monkeypatch):
    path = tmp_path / "folder" / "file"
    storage.write(path, b"old")

    def broken(descriptor):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(storage.os, "fsync", broken)
        with pytest.raises(OSError, match="Input/output error") as failure:
            storage.write(path, b"new")
    assert failure.value.filename == str(path)
    assert contents(tmp_path) == {"folder/file": b"old"}
    storage.write(path, b"new")
    assert contents(tmp_path) == {"folder/file": b"new"}


# best.pt


def worse_from(epoch, monkeypatch):
    """Make the test loss worse from an epoch on."""
    evaluate = train.evaluate
    calls = []

    def worse(model, images):
        test = evaluate(model, images)
        calls.append(None)
        return test._replace(bce=test.bce + 1000 * (len(calls) >= epoch))

    monkeypatch.setattr(train, "evaluate", worse)


@pytest.fixture
def run_best_at_two(run_main, tmp_path, monkeypatch, no_drawing):
    """A folder with a finished run of four epochs, of which the second is the best."""
    folder = tmp_path / "best at two"
    with monkeypatch.context() as patch:
        worse_from(3, patch)
        assert run_main(folder, *SMALL, "--epochs", 4).code == 0
    return folder


def test_last_pictures_and_log_p_are_those_of_the_best_epoch(run_main, tmp_path, monkeypatch, no_drawing):
    used = {}

    def watch(owner, name):
        work = getattr(owner, name)

        def watched(model, *rest):
            used[name] = model
            return work(model, *rest)

        monkeypatch.setattr(owner, name, watched)

    for owner, name in ((likelihood, "estimate"), (pictures, "draw_manifold"), (VAE, "sample")):
        watch(owner, name)
    worse_from(3, monkeypatch)
    assert run_main(tmp_path, *SMALL, "--epochs", 4).code == 0
    best = torch.load(tmp_path / "best.pt", weights_only=True)
    assert best["row"]["epoch"] == 2
    assert used.keys() == {"estimate", "draw_manifold", "sample"}
    for name, model in used.items():
        assert equal(dict(model.state_dict()), dict(best["model"])), name


def test_best_pt_stays_with_best_epoch(run_best_at_two, run_main, tmp_path):
    assert run_main(tmp_path / "two", *SMALL, "--epochs", 2).code == 0
    totals = [float(row["test_total"]) for row in metrics(run_best_at_two)]
    assert totals.index(min(totals)) == 1
    assert checkpoint.read(run_best_at_two / "best.pt")["row"]["epoch"] == 2
    expected = checkpoint.load(tmp_path / "two" / "checkpoint.pt").model
    assert equal(dict(checkpoint.load_model(run_best_at_two / "best.pt").state_dict()), dict(expected))


def test_best_pt_of_another_run_is_refused(run_best_at_two, finished_run, run_main):
    shutil.copy(finished_run.folder / "best.pt", run_best_at_two)
    before = tables(run_best_at_two)
    assert_refused(run_main(run_best_at_two, *SMALL, "--epochs", 5), "best.pt is not of epoch 2, the best of this run")
    assert tables(run_best_at_two) == before


def test_process_that_writes_nothing_needs_no_best_pt(run_best_at_two, small_mnist):
    """Of several machines, only that of the first process need have the results directory."""
    saved = checkpoint.load(run_best_at_two / "checkpoint.pt")
    (run_best_at_two / "best.pt").unlink()
    run = train.begin(saved.config, datasets.load("mnist", small_mnist))
    checkpoint.restore(run, saved)
    assert len(run.history) == 4


def test_missing_best_pt_names_the_ways_out(run_best_at_two, run_main):
    (run_best_at_two / "best.pt").unlink()
    for flags in ((*SMALL, "--epochs", 5), ("--resume", "--epochs", 5)):
        assert_refused(
            run_main(run_best_at_two, *flags), "best.pt is missing: put it back, or replace it with --overwrite"
        )
    assert run_main(run_best_at_two, *SMALL, "--epochs", 1, "--overwrite").code == 0


@pytest.mark.parametrize("name", ["checkpoint.pt", "best.pt"])
def test_flag_of_a_newer_version_is_named(copied_run, run_main, name):
    edited(copied_run.folder / name, put("config", "warp", 9))
    with pytest.raises(UserError, match=rf"{name} has flags of another version of this program \(warp\)"):
        (checkpoint.load if name == "checkpoint.pt" else checkpoint.load_model)(copied_run.folder / name)
    assert run_main(copied_run.folder, *SMALL, "--epochs", 1, "--overwrite").code == 0


@pytest.mark.parametrize("path", ["C:\\Users\\me\\pets", "/home/me/pets", "\\\\server\\share\\pets"])
def test_path_that_means_nothing_here_is_no_damage(copied_run, path):
    edited(copied_run.folder / "best.pt", put("config", "dataset", path))
    assert checkpoint.load_model(copied_run.folder / "best.pt").latent_dim == 2


# The same data in another place


@pytest.fixture
def pets(tmp_path):
    """A folder with two classes of seven images each."""
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for i in range(7):
            Image.fromarray(rng.integers(0, 256, (28, 28)).astype(np.uint8)).save(tmp_path / "pets" / name / f"{i}.png")
    return tmp_path / "pets"


def test_moved_images_are_the_same_run(pets, tmp_path, no_drawing):
    flags = ("--results_dir", tmp_path / "results", *SMALL, "--epochs")
    assert call_main("--dataset", pets, *flags, 1).code == 0
    moved = pets.rename(tmp_path / "moved")
    refused = call_main("--results_dir", tmp_path / "results", "--resume", "--epochs", 2)
    assert_refused(refused, f"{pets} is not a directory; name another --dataset")
    done = call_main("--dataset", moved, *flags, 2)
    assert done.code == 0, done.err
    assert done.out.splitlines()[1] == "Continuing after epoch 1 of 2"
    moved = moved.rename(tmp_path / "moved again")
    done = call_main("--results_dir", tmp_path / "results", "--resume", "--dataset", moved, "--epochs", 3)
    assert done.code == 0, done.err
    assert len(metrics(tmp_path / "results")) == 3


def test_images_that_have_changed_are_counted_and_refused_unless_resumed(pets, tmp_path, no_drawing):
    flags = ("--dataset", pets, "--results_dir", tmp_path / "results", *SMALL, "--epochs")
    assert call_main(*flags, 1).code == 0
    for i in range(3):
        Image.new("L", (28, 28), i).save(pets / "cat" / f"{i}.png")
    earlier = metrics(tmp_path / "results")
    words = "of its 14 images 3 are gone or have changed, and 3 are new"
    assert_refused(call_main(*flags, 2), words, "--overwrite", "another --results_dir", "with --resume")
    done = call_main(*flags, 2, "--resume")
    assert done.code == 0, done.err
    assert f"Continuing on other data: {words}" in done.out
    assert metrics(tmp_path / "results")[:-1] == earlier, "earlier epochs keep the losses of the old images"


def test_finished_run_under_resume_keeps_its_film_also_with_other_images(pets, tmp_path, no_drawing):
    folder = tmp_path / "results"
    flags = ("--dataset", pets, "--results_dir", folder, *SMALL)
    assert call_main(*flags, "--epochs", 2).code == 0
    next(pets.rglob("*.png")).unlink()
    before = contents(folder)
    done = call_main(*flags, "--epochs", 2, "--resume")
    assert "are done" in done.out
    frames = {name: content for name, content in contents(folder).items() if name.startswith("latent/")}
    assert frames == {name: content for name, content in before.items() if name.startswith("latent/")}


def test_renamed_images_are_another_order(pets, tmp_path, no_drawing):
    for part in ("train", "test"):
        shutil.copytree(pets, tmp_path / "split" / part)
    flags = ("--dataset", tmp_path / "split", "--results_dir", tmp_path / "results", *SMALL, "--epochs")
    assert call_main(*flags, 1).code == 0
    cats = tmp_path / "split" / "train" / "cat"
    (cats / "0.png").rename(cats / "z.png")
    assert_refused(call_main(*flags, 2), "other data (the same images in another order, as after renaming files")


def test_an_image_with_another_label_is_another_image(small_mnist, tmp_path, no_drawing):
    shutil.copytree(small_mnist, tmp_path / "data")
    flags = ("--data_dir", tmp_path / "data", "--results_dir", tmp_path / "results", *SMALL, "--epochs")
    assert call_main(*flags, 1).code == 0
    labels = tmp_path / "data" / "MNIST" / "raw" / "train-labels-idx1-ubyte"
    labels.write_bytes(labels.read_bytes()[:-1] + b"\x00")  # it was a 9
    assert_refused(call_main(*flags, 2), "of its 360 images 1 are gone or have changed, and 1 are new")


def test_data_dir_that_has_moved_is_the_same_run_also_under_resume(
    copied_run, small_mnist, tmp_path, monkeypatch, no_drawing
):
    shutil.copytree(small_mnist, tmp_path / "moved")
    path = copied_run.folder / "checkpoint.pt"
    edited(path, put("config", "data_dir", str(tmp_path / "gone")))
    monkeypatch.setenv("VAE_DATA_DIR", str(tmp_path / "moved"))
    done = call_main("--results_dir", copied_run.folder, "--resume", "--epochs", 4)
    assert done.code == 0, done.err
    assert len(metrics(copied_run.folder)) == 4


def test_checkpoint_without_checksums_is_continued_in_the_same_code(copied_run, run_main, no_drawing):
    """As earlier versions of format 2 wrote it."""
    path = copied_run.folder / "checkpoint.pt"
    edited(path, lambda saved: [saved.pop(name) for name in ("named", "data", "threads")])
    assert run_main(copied_run.folder, *SMALL, "--epochs", 4).code == 0
    assert checkpoint.load(path).data is not None


# What auto chose


@pytest.mark.parametrize("resume", [(), ("--resume",)], ids=["plain", "resume"])
def test_what_auto_chose_is_chosen_again_where_it_cannot_be_had(copied_run, run_main, monkeypatch, no_drawing, resume):
    flags = resume or SMALL
    edited(
        copied_run.folder / "checkpoint.pt", lambda saved: saved["config"].update(precision="bfloat16", compile="on")
    )
    monkeypatch.setattr("support.machine.steps.find_precision", lambda name, device: "float32")
    monkeypatch.setattr("support.machine.compiled.find_compile", lambda name, device, steps: "off")
    done = run_main(copied_run.folder, *flags, "--epochs", 4)
    assert done.code == 0, done.err
    assert "Continuing with --precision float32 in place of bfloat16" in done.out
    assert "Continuing with --compile off in place of on" in done.out


def test_precision_that_was_named_is_kept(run_main, tmp_path, monkeypatch, no_drawing):
    assert run_main(tmp_path, *SMALL, "--epochs", 1, "--precision", "bfloat16").code == 0
    done = run_main(tmp_path, "--resume", "--epochs", 2)
    assert done.code == 0
    assert "Continuing with" not in done.out
    assert checkpoint.load(tmp_path / "checkpoint.pt").config.precision == "bfloat16"


def test_another_number_of_threads_is_said(copied_run, run_main, no_drawing):
    edited(copied_run.folder / "checkpoint.pt", put("threads", 64))
    done = run_main(copied_run.folder, *SMALL, "--epochs", 4)
    assert done.code == 0
    assert " threads in place of 64: results may differ in their last digits" in done.out


def test_best_of_is_first_of_lowest_totals():
    history = [{"epoch": epoch, "test_total": total} for epoch, total in enumerate([3.0, 1.0, 2.0, 1.0], 1)]
    assert checkpoint.best_of(history)["epoch"] == 2


def test_metrics_of_mmd_run_have_no_kld():
    row = dict.fromkeys(checkpoint.NUMBERS, 0.5) | {"epoch": 1, "seconds": 2.0}
    for has_kld, cell in ((True, "0.5000"), (False, "")):
        text = checkpoint.metrics_csv([row], has_kld).decode()
        (cells,) = csv.DictReader(io.StringIO(text))
        assert (cells["train_kld"], cells["test_kld"], cells["test_divergence"]) == (cell, cell, "0.5000")
        assert (cells["epoch"], cells["seconds"]) == ("1", "2.000")


# Damage


DAMAGES = {
    "truncated": lambda content: content[:-1000],
    "altered": lambda content: content[: len(content) // 2] + b"\xff\0\xff" + content[len(content) // 2 + 3 :],
    "empty": lambda content: b"",
    "text": lambda content: b"not a checkpoint",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_checkpoint_is_refused_and_left_alone(copied_run, run_main, damage):
    path = copied_run.folder / "checkpoint.pt"
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    before = tables(copied_run.folder)
    for flags in (THREE, ("--resume",)):
        assert_refused(run_main(copied_run.folder, *flags), f"{path} is damaged", "--overwrite", "--results_dir")
    assert tables(copied_run.folder) == before


@pytest.mark.parametrize("damage", [*DAMAGES, "no weights"])
def test_damaged_best_pt_is_refused_and_left_alone(run_best_at_two, run_main, damage):
    path = run_best_at_two / "best.pt"
    if damage == "no weights":
        edited(path, lambda saved: saved.update(model={}))
    else:
        path.write_bytes(DAMAGES[damage](path.read_bytes()))
    (run_best_at_two / "manifold.png").unlink()
    before = tables(run_best_at_two)
    assert_refused(run_main(run_best_at_two, *SMALL, "--epochs", 4), f"{path} is damaged")
    if damage != "no weights":  # noticed before the run goes on
        assert tables(run_best_at_two) == before


def put(*place_and_value):
    """A function that puts a value at a place in a nested dict."""
    *place, last, value = place_and_value

    def change(saved):
        for key in place:
            saved = saved[key]
        saved[last] = value

    return change


TAMPERED = {
    "history is a number": put("history", 3),
    "history is empty": put("history", []),
    "history of numbers": put("history", [3]),
    "row is empty": put("history", [{}]),
    "row of another epoch": put("history", 0, "epoch", 2),
    "row with a tensor": put("history", 0, "more", torch.zeros(2)),
    "figure is text": put("history", 0, "test_bce", "7"),
    "figure is not finite": put("history", 0, "test_total", float("nan")),
    "epochs is zero": put("config", "epochs", 0),
    "unknown flag": put("config", "warp", 9),
    "unknown prior": put("config", "prior", "flow"),
    "no hidden layer": put("config", "hidden_dims", []),
    "seed is negative": put("config", "seed", -1),
    "no model": put("model", None),
    "no weights": put("model", {}),
    "weights of another shape": put("model", "decoder.0.weight", torch.zeros(2, 16)),
    "no optimiser": put("optimizer", {}),
    "no scheduler": put("scheduler", None),
    "checksums are a number": put("data", 3),
    "checksums of another kind": put("data", torch.zeros(360)),
    "no fingerprint": lambda saved: saved.pop("fingerprint"),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_tampered_checkpoint_is_refused_and_left_alone(copied_run, run_main, name):
    """Its checksums are right, but no run would have written it."""
    edited(copied_run.folder / "checkpoint.pt", TAMPERED[name])
    before = tables(copied_run.folder)
    assert_refused(run_main(copied_run.folder, "--resume", "--epochs", 5), "checkpoint.pt")
    assert tables(copied_run.folder) == before


class Hostile:
    """Unpickling it makes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def test_checkpoint_runs_no_code(copied_run, run_main, tmp_path):
    torch.save({"config": Hostile(tmp_path / "hacked")}, copied_run.folder / "checkpoint.pt")
    assert_refused(run_main(copied_run.folder, *THREE), "checkpoint.pt is damaged")
    assert not (tmp_path / "hacked").exists()


def former_checkpoint():
    """A checkpoint.pt as the former version of the program wrote it: without a format."""
    model = {"encoder.0.weight": torch.zeros(16, 784)}
    config = {"epochs": 3, "seed": 1, "hidden_dims": [16], "optimizer": "adam"}
    row = {"epoch": 1, "train_bce": 200.0, "test_bce": 190.0, "test_total": 195.0, "seconds": 1.0}
    moments = {"first": list(model.values()), "second": list(model.values()), "steps": 5}
    return {"config": config, "epoch": 1, "history": [row], "model": model, "optimizer": moments}


def test_checkpoint_of_former_version_is_refused(run_main, tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    torch.save(former_checkpoint(), folder / "checkpoint.pt")
    before = tables(folder)
    for flags in (THREE, ("--resume",)):
        done = run_main(folder, *flags)
        assert_refused(done, f"{folder / 'checkpoint.pt'} was written by another version of this program")
    assert tables(folder) == before


def test_overwrite_replaces_a_run_of_the_former_version(run_main, tmp_path, no_drawing):
    folder = tmp_path / "results"
    folder.mkdir()
    torch.save(former_checkpoint(), folder / "checkpoint.pt")
    assert run_main(folder, *THREE, "--overwrite").code == 0
    assert len(checkpoint.load(folder / "checkpoint.pt").history) == 3


def test_best_pt_of_former_version_is_refused(tmp_path):
    network = {"latent_dim": 2, "hidden_dims": [16], "prior": "normal", "prior_components": 10, "divergence": "kl"}
    torch.save({"network": network, "epoch": 1, "model": former_checkpoint()["model"]}, tmp_path / "best.pt")
    with pytest.raises(UserError, match="another version of this program"):
        checkpoint.load_model(tmp_path / "best.pt")


# Details


def test_what_is_saved_is_what_is_loaded(finished_run):
    saved = checkpoint.load(finished_run.folder / "checkpoint.pt")
    assert saved.config.epochs == 3
    assert saved.fingerprint == checkpoint.fingerprint()
    assert [row["epoch"] for row in saved.history] == [1, 2, 3]
    assert to_plain(saved.config)["hidden_dims"] == [16]
    best = checkpoint.read(finished_run.folder / "best.pt")
    assert best["row"] == checkpoint.best_of(saved.history)


def test_open_flags_are_filled_and_named_ones_left_named_flags_to_the_command():
    saved = checkpoint.Saved(Config(lr=0.5, precision="bfloat16"), "", [], {}, {}, {}, {"precision"}, None, None)
    command = Config(epochs=9, resume=True, named=frozenset({"epochs", "resume"}))
    adopted = checkpoint.fill_open_flags(command, saved)
    assert (adopted.epochs, adopted.lr, adopted.precision, adopted.resume) == (9, 0.5, "bfloat16", True)
    assert checkpoint.fill_open_flags(Config(), saved).lr == Config().lr
    assert checkpoint.fill_open_flags(Config(), saved).precision == "bfloat16"
    assert checkpoint.fill_open_flags(Config(precision="float32"), saved).precision == "float32"
    assert checkpoint.fill_open_flags(command, None) is command


def test_resume_computes_where_the_command_says_and_not_where_the_run_began():
    saved = checkpoint.Saved(Config(device="cpu"), "", [], {}, {}, {}, frozenset(), None, None)
    command = Config(resume=True, named=frozenset({"resume"}))
    assert checkpoint.fill_open_flags(command, saved).device == "auto"


def test_run_on_own_images_is_told_apart_before_mnist_is_looked_for(copied_run, tmp_path):
    edited(copied_run.folder / "checkpoint.pt", put("config", "dataset", str(tmp_path / "pets")))
    done = call_main("--results_dir", copied_run.folder, "--data_dir", tmp_path / "nothing", *SMALL, "--epochs", 3)
    assert_refused(done, "holds another run (--dataset ")


def test_frames_are_numbered_with_three_digits_or_more(tmp_path):
    assert files.frame(tmp_path, "latent", 7) == tmp_path / "latent" / "epoch_007.png"
    assert files.frame(tmp_path, "latent", 1234) == tmp_path / "latent" / "epoch_1234.png"


def test_damaged_frame_costs_the_gif_and_its_advice_works(copied_run, run_main):
    """A GIF of the epochs before is removed, so that the repeated command makes it anew."""
    path = copied_run.folder / "latent" / "epoch_002.png"
    path.write_bytes(b"damaged")
    (copied_run.folder / "samples.png").unlink()
    done = run_main(copied_run.folder, *THREE)
    assert done.code == 0
    assert done.err == f"WARNING: {path}: cannot be read as a picture; delete it, and repeat the command\n"
    assert (copied_run.folder / "samples.png").exists()
    assert not (copied_run.folder / "latent.gif").exists()
    path.unlink()
    assert run_main(copied_run.folder, *THREE).err == ""
    assert (copied_run.folder / "latent.gif").exists()


def test_deleted_frame_is_left_out_of_the_gif(copied_run, run_main, monkeypatch):
    shown = []
    gif = utils.gif
    monkeypatch.setattr(utils, "gif", lambda paths: shown.extend(paths) or gif(paths))
    (copied_run.folder / "latent" / "epoch_002.png").unlink()
    (copied_run.folder / "latent.gif").unlink()
    assert run_main(copied_run.folder, *THREE).code == 0
    assert [path.name for path in shown] == ["epoch_001.png", "epoch_003.png"]
