"""What errors advise is followed: the advised command succeeds, or meets the next, other error.

test_errors.py names the test of each error.
"""

import contextlib
import errno
import gzip
import os
import shutil
import stat
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import SMALL, call_main, write_mnist
from PIL import Image

import explorer.__main__
import train
from support import errors
from support.data import download
from support.machine import devices, environment
from support.run import checkpoint, storage

ROOT = Path(__file__).parent.parent
ONE = (*SMALL, "--epochs", 1)
TWO = (*SMALL, "--epochs", 2)


def refused(done, *words):
    """Assert that a command ended in one line that holds these words."""
    assert done.code == 1, done.err
    (line,) = done.err.splitlines()
    assert line.startswith("main.py: error: ")
    for word in words:
        assert word in done.err


def succeeded(done):
    assert done.code == 0, done.err
    return done


def write_images(folder, counts):
    """Write {sub-folder: number of images} of noise."""
    for seed, (name, n) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(n):
            values = np.random.default_rng(100 * seed + i).integers(0, 256, (28, 28)).astype(np.uint8)
            Image.fromarray(values).save(folder / name / f"{i}.png")
    return folder


pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_drawing")]


# Data


def test_missing_mnist(small_mnist, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "_fetch", lambda *where: "no network")
    flags = ("--dataset", "mnist", "--results_dir", tmp_path / "results", *ONE)
    missing = ("--data_dir", tmp_path / "none")
    refused(call_main(*missing, *flags), "Put the four IDX files or mnist.npz there", "--data_dir", "--dataset digits")
    succeeded(call_main("--data_dir", small_mnist, *flags))
    succeeded(call_main(*missing, *flags[2:], "--dataset", "digits", "--overwrite"))
    shutil.copytree(small_mnist / "MNIST" / "raw", tmp_path / "none", dirs_exist_ok=True)
    succeeded(call_main(*missing, *flags, "--overwrite"))


IDX_DAMAGES = {
    "items": ("t10k-images-idx3-ubyte", lambda content: content[:-1]),
    "label": ("t10k-labels-idx1-ubyte", lambda content: content[:-1] + b"\x0b"),
    "counts": ("t10k-labels-idx1-ubyte", lambda content: content[:7] + b"\x3b" + content[8:-1]),
    "archive": ("t10k-labels-idx1-ubyte.gz", lambda content: gzip.compress(content)[:-9]),
    "whole": ("mnist.npz", lambda content: b"damaged"),
}


@pytest.mark.parametrize("kind", IDX_DAMAGES)
def test_damaged_idx_file(small_mnist, tmp_path, monkeypatch, kind):
    """Deleted files are downloaded; the download is a copy here."""
    name, damage = IDX_DAMAGES[kind]
    raw = tmp_path / "data" / "MNIST" / "raw"
    originals = small_mnist / "MNIST" / "raw"

    def fetch(dataset, mirror, place):
        shutil.copytree(originals, place, dirs_exist_ok=True)

    monkeypatch.setattr(download, "_fetch", fetch)
    if kind == "whole":
        raw.mkdir(parents=True)
        (raw / name).write_bytes(b"damaged")
    else:
        shutil.copytree(originals, raw)
        (raw / name.removesuffix(".gz")).unlink()
        (raw / name).write_bytes(damage((originals / name.removesuffix(".gz")).read_bytes()))
    flags = ("--results_dir", tmp_path / "results", *ONE)
    done = call_main("--data_dir", tmp_path / "data", *flags)
    refused(done, name, "download both again" if kind == "counts" else "delete the file to download it again")
    (raw / name).unlink()
    succeeded(call_main("--data_dir", tmp_path / "data", *flags))
    succeeded(call_main("--data_dir", small_mnist, *flags, "--overwrite"))


FOLDERS = {
    "none": ({"a": 0}, "put some there, in one sub-folder per class", lambda folder: write_images(folder, {"a": 3})),
    "many": ({f"c{i}": 2 for i in range(21)}, "keep at most 20 classes", lambda folder: shutil.rmtree(folder / "c3")),
    "one each": ({"a": 1, "b": 1}, "add one", lambda folder: write_images(folder, {"a": 2})),
    "unknown": (
        {"train/a": 2, "test/b": 2},
        "give both parts the same classes",
        lambda folder: write_images(folder, {"train/b": 2}),
    ),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_folder_of_another_form(tmp_path, name):
    counts, advice, follow = FOLDERS[name]
    write_images(tmp_path / "pets", counts)
    flags = ("--dataset", tmp_path / "pets", "--results_dir", tmp_path / "results", *ONE)
    refused(call_main(*flags), advice)
    follow(tmp_path / "pets")
    succeeded(call_main(*flags))


def test_folder_of_which_one_part_has_classes(tmp_path):
    folder = write_images(tmp_path / "pets", {"train/a": 3, "train/b": 3, "test": 2})
    flags = ("--results_dir", tmp_path / "results", *ONE)
    refused(call_main("--dataset", folder, *flags), f"name {folder / 'train'} as --dataset")
    succeeded(call_main("--dataset", folder / "train", *flags))


def test_damaged_images(tmp_path):
    folder = write_images(tmp_path / "pets", {"a": 5})
    for name in ("0.png", "1.png"):
        (folder / "a" / name).write_text("no image")
    flags = ("--dataset", folder, "--results_dir", tmp_path / "results", *ONE)
    refused(call_main(*flags), "2 files cannot be read as images", "repair or remove them")
    for name in ("0.png", "1.png"):
        (folder / "a" / name).unlink()
    succeeded(call_main(*flags))


def test_folder_that_is_gone(tmp_path):
    folder = write_images(tmp_path / "pets", {"a": 5})
    flags = ("--results_dir", tmp_path / "results", "--resume", *ONE)
    succeeded(call_main("--dataset", folder, *flags))
    moved = folder.rename(tmp_path / "moved")
    refused(call_main(*flags[:-1], 2), f"{folder} is not a directory; name another --dataset")
    succeeded(call_main(*flags[:-1], 2, "--dataset", moved))


def test_folder_that_cannot_be_read(tmp_path, monkeypatch):
    """Root reads everything, so what other users may not read is refused here."""
    folder = write_images(tmp_path / "pets", {"a": 5, "b": 5})
    scandir = os.scandir

    def refuse(path="."):
        if not os.stat(path).st_mode & stat.S_IRUSR:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    for name in ("a", "b"):
        (folder / name).chmod(0)
    flags = ("--dataset", folder, "--results_dir", tmp_path / "results", *ONE)
    refused(call_main(*flags), "make it readable (chmod -R +rX)")
    subprocess.run(["chmod", "-R", "+rX", folder], check=True)
    succeeded(call_main(*flags))


def test_results_among_the_images(tmp_path):
    folder = write_images(tmp_path / "pets", {"a": 5})
    done = call_main("--dataset", folder, "--results_dir", folder / "results", *ONE)
    assert done.code == 2
    assert "name a --results_dir outside it" in done.err
    succeeded(call_main("--dataset", folder, "--results_dir", tmp_path / "results", *ONE))


# Flags


def test_flags_that_exclude_each_other(run_main, tmp_path):
    done = run_main(tmp_path, *ONE, "--resume", "--overwrite")
    assert (done.code, "give one of the two" in done.err) == (2, True)
    for flag in ("--resume", "--overwrite"):
        succeeded(run_main(tmp_path, *ONE, flag))
    done = run_main(tmp_path, *ONE, "--divergence", "mmd", "--prior", "vamp")
    assert (done.code, "leave --prior at normal" in done.err) == (2, True)
    succeeded(run_main(tmp_path / "mmd", *ONE, "--divergence", "mmd"))


def test_batches_without_mmd(run_main, tmp_path):
    flags = ("--divergence", "mmd", *ONE)
    refused(run_main(tmp_path, *flags, "--batch_size", 23), "change --batch_size")
    succeeded(run_main(tmp_path, *flags, "--batch_size", 25))
    resumed = (*SMALL, "--epochs", 2, "--resume")
    refused(run_main(tmp_path, *resumed, "--prior", "vamp"), "leave --prior at normal")
    succeeded(run_main(tmp_path, *resumed))


# The machine


def test_missing_package(monkeypatch):
    """The advised name is that of an installed distribution, and the module loads with it."""
    for module, name in errors.DISTRIBUTIONS.items():
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, module, None)
            with pytest.raises(errors.UserError, match=rf"pip install (--force-reinstall )?{name}"):
                errors.load_package(module)
        assert metadata.version(name)
        assert errors.load_package(module).__name__ == module


def test_device_that_is_not_there(run_main, tmp_path):
    kind = "mps" if torch.cuda.is_available() else "cuda"
    refused(run_main(tmp_path, *ONE, "--device", kind), "use --device auto or cpu")
    for device in ("auto", "cpu"):
        succeeded(run_main(tmp_path, *ONE, "--device", device, "--overwrite"))


def test_fewer_gpus_than_processes(monkeypatch):
    """Simulated, and `nproc_per_node` lowered from 2 to 1."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(devices, "find_world", lambda: environment.World(1, 2))
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(errors.UserError, match="lower nproc_per_node"):
        devices.present_device("cuda")
    monkeypatch.setattr(devices, "find_world", lambda: environment.ALONE)
    assert devices.present_device("cuda") == torch.device("cuda", 0)


def test_compiler_that_fails(run_main, tmp_path, monkeypatch):
    def fail(*graph, **options):
        raise RuntimeError("no compiler")

    monkeypatch.setattr(torch._inductor, "standalone_compile", fail)
    refused(run_main(tmp_path, *ONE, "--compile", "on"), "no compiler", "use --compile off")
    succeeded(run_main(tmp_path, *ONE, "--compile", "off"))


@pytest.mark.parametrize("finished", [0, 1])
def test_missing_memory(run_main, tmp_path, monkeypatch, finished):
    """A step that takes no more than 32 images; an epoch may be finished before memory is short."""
    if finished:
        succeeded(run_main(tmp_path, *ONE))
    eager = train.choose_step

    def choose(config, step):
        if config.batch_size > 32:
            return lambda *batch: torch.empty(2**60)
        return eager(config, step)

    monkeypatch.setattr(train, "choose_step", choose)
    refused(run_main(tmp_path, *TWO), "lower --batch_size (with --resume, if epochs are finished)", "smaller network")
    resume = ("--resume",) if finished else ()
    succeeded(run_main(tmp_path, *TWO, "--batch_size", 32, *resume))


# The run in the directory


def test_run_of_other_settings(copied_run, run_main, monkeypatch, tmp_path):
    folder = copied_run.folder
    changed = (*SMALL, "--epochs", 4, "--lr", 0.01)
    done = run_main(folder, *changed)
    refused(done, "or continue it with --resume, without these flags or with their new values")
    succeeded(run_main(folder, "--resume", "--epochs", 4))
    succeeded(run_main(folder, "--resume", *changed[:-4], "--epochs", 5, "--lr", 0.01))
    refused(run_main(folder, *ONE, "--lr", 0.01), "name --epochs 5 or more, or replace it with --overwrite")
    succeeded(run_main(folder, *SMALL, "--epochs", 5, "--lr", 0.01))
    succeeded(run_main(tmp_path / "another", *changed))
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "fingerprint", lambda: "other")
        refused(run_main(folder, *SMALL, "--epochs", 6, "--lr", 0.01), "continue it all the same with --resume")
        succeeded(run_main(folder, *SMALL, "--epochs", 6, "--lr", 0.01, "--resume"))
    succeeded(run_main(folder, *ONE, "--overwrite"))


def test_run_on_other_data(copied_run, tmp_path):
    other = write_mnist(tmp_path / "other", n_train=200)
    flags = ("--data_dir", other, "--results_dir", copied_run.folder, *SMALL, "--epochs")
    refused(call_main(*flags, 4), "of its 360 images ", "or go on with these with --resume")
    succeeded(call_main(*flags, 4, "--resume"))
    succeeded(call_main(*flags, 4))  # they are the run's own now


def test_run_of_other_widths(copied_run, run_main):
    flags = ("--resume", "--epochs", 4)
    refused(run_main(copied_run.folder, *flags, "--hidden_dims", 8), "leave these flags out, or replace it")
    succeeded(run_main(copied_run.folder, *flags))
    succeeded(run_main(copied_run.folder, "--overwrite", *ONE, "--hidden_dims", 8))


SPOILED = {
    "damaged": lambda saved: saved.update(history=3),
    "another format": lambda saved: saved.update(format=1),
    "another flag": lambda saved: saved["config"].update(warp=9),
}


@pytest.mark.parametrize("kind", SPOILED)
def test_run_that_cannot_be_read(copied_run, run_main, tmp_path, kind):
    path = copied_run.folder / "checkpoint.pt"
    saved = torch.load(path, weights_only=True)
    SPOILED[kind](saved)
    torch.save(saved, path)
    refused(run_main(copied_run.folder, *ONE), "replace it with --overwrite, or name another --results_dir")
    succeeded(run_main(tmp_path / "another", *ONE))
    succeeded(run_main(copied_run.folder, *ONE, "--overwrite"))


def test_files_that_no_run_wrote(run_main, tmp_path):
    (tmp_path / "loss.png").touch()
    refused(run_main(tmp_path, *ONE), "replace it with --overwrite, or name another --results_dir")
    succeeded(run_main(tmp_path / "another", *ONE))
    succeeded(run_main(tmp_path, *ONE, "--overwrite"))


@pytest.mark.parametrize("kind", ["missing", "another"])
def test_best_pt_that_is_missing_or_another_one(copied_run, run_main, tmp_path, monkeypatch, kind):
    evaluate = train.evaluate
    with monkeypatch.context() as patch:
        patch.setattr(train, "evaluate", lambda *batch: evaluate(*batch)._replace(bce=1e6))
        succeeded(run_main(copied_run.folder, *SMALL, "--epochs", 4))
    path = copied_run.folder / "best.pt"
    sound = path.read_bytes()
    if kind == "missing":
        path.unlink()
    else:
        succeeded(run_main(tmp_path / "another", *ONE))
        shutil.copy(tmp_path / "another" / "best.pt", path)
    refused(run_main(copied_run.folder, *SMALL, "--epochs", 5), "best.pt is ", "replace it with --overwrite")
    path.write_bytes(sound)
    succeeded(run_main(copied_run.folder, *SMALL, "--epochs", 5))
    path.unlink()
    succeeded(run_main(copied_run.folder, *ONE, "--overwrite"))


def refuse_writing(path):
    raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))


def test_results_dir_that_cannot_be_used(run_main, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    refused(run_main(tmp_path / "file", *ONE), "file is not a directory; name another --results_dir")
    with monkeypatch.context() as patch:
        patch.setattr(storage, "has_locks", refuse_writing)
        refused(run_main(tmp_path / "locked", *ONE), "locked cannot be written (Read-only file system); name another")
    succeeded(run_main(tmp_path / "results", *ONE))
    with storage.lock(tmp_path / "results"):
        refused(run_main(tmp_path / "results", *ONE), "wait for it, or name another --results_dir")
        succeeded(run_main(tmp_path / "another", *ONE))
    succeeded(run_main(tmp_path / "results", *ONE))


@pytest.mark.parametrize("flags", [("--lr", 5e-4), ("--precision", "float32")])
def test_loss_that_is_not_finite(run_main, tmp_path, monkeypatch, flags):
    """bfloat16 at --lr 0.001 is the run that diverges in epoch 2."""
    begun = (*SMALL, "--precision", "bfloat16")
    succeeded(run_main(tmp_path, *begun, "--epochs", 1))
    choose = train.choose_step

    def diverge(config, step):
        is_bad = config.precision == "bfloat16" and config.lr == 1e-3
        return (lambda *batch: torch.tensor([torch.nan, 1.0])) if is_bad else choose(config, step)

    monkeypatch.setattr(train, "choose_step", diverge)
    done = run_main(tmp_path, *begun, "--epochs", 3)
    advice = "name a lower --lr or --precision float32; add --resume to go on from epoch 1"
    refused(done, f"in epoch 2, batch 1: {advice}")
    done = succeeded(run_main(tmp_path, "--resume", "--epochs", 3, *flags))
    assert "Continuing after epoch 1 of 3" in done.out


def test_first_loss_that_is_not_finite(run_main, tmp_path, monkeypatch):
    choose = train.choose_step

    def diverge(config, step):
        return (lambda *batch: torch.tensor([torch.nan, 1.0])) if config.lr == 1 else choose(config, step)

    monkeypatch.setattr(train, "choose_step", diverge)
    done = run_main(tmp_path, *ONE, "--lr", 1, "--precision", "float32")
    refused(done, "in epoch 1, batch 1: name a lower --lr\n")
    succeeded(run_main(tmp_path, *ONE, "--lr", 1e-3))


# The page


def page(*arguments):
    with contextlib.redirect_stdout(None):
        return explorer.__main__.main([str(argument) for argument in arguments])


def test_page_of_a_run_whose_images_have_moved_or_changed(tmp_path, capsys):
    folder = write_images(tmp_path / "pets", {"a": 7, "b": 7})
    results = tmp_path / "results"
    assert page(tmp_path) == 1
    assert "checkpoint.pt is missing" in capsys.readouterr().err
    succeeded(call_main("--dataset", folder, "--results_dir", results, *ONE))
    moved = folder.rename(tmp_path / "moved")
    assert page(results) == 1
    assert f"{folder} is not a directory; name another --dataset" in capsys.readouterr().err
    assert page(results, "--dataset", moved) == 0
    other = write_images(tmp_path / "other", {"a": 7, "b": 9})
    assert page(results, "--dataset", other) == 1
    assert "name the run's own images as --dataset" in capsys.readouterr().err


def test_page_of_a_run_that_was_interrupted(copied_run, small_mnist, run_main, tmp_path, capsys):
    succeeded(run_main(tmp_path / "another", *ONE))
    shutil.copy(tmp_path / "another" / "best.pt", copied_run.folder)
    assert page(copied_run.folder, "--data_dir", small_mnist) == 1
    assert "run main.py with the run's flags again" in capsys.readouterr().err
    succeeded(run_main(copied_run.folder, *copied_run.flags))  # done: the last epoch is the best, and is not looked at
    (copied_run.folder / "samples.png").unlink()
    succeeded(run_main(copied_run.folder, *copied_run.flags))
    assert page(copied_run.folder, "--data_dir", small_mnist) == 0


def test_errors_of_the_page_and_of_studies_name_the_flags_that_are_main_py_s(copied_run, small_mnist, tmp_path, capsys):
    path = copied_run.folder / "checkpoint.pt"
    path.write_bytes(b"damaged")
    assert page(copied_run.folder, "--data_dir", small_mnist) == 1
    assert "(flags of main.py: --overwrite, --results_dir)" in capsys.readouterr().err
    study = [sys.executable, "-m", "studies.prior", "--quick", "--results_dir", tmp_path]
    run = tmp_path / "quick" / "runs" / "prior=normal,seed=1,epochs=2,lr=0.008"
    succeeded(call_main("--results_dir", run, *ONE, "--dataset", "digits"))
    done = subprocess.run(study, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "holds another run" in done.stderr
    assert "--resume" in done.stderr.partition(" (flags of main.py: ")[2]


def test_page_that_cannot_be_written(copied_run, small_mnist, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr(storage, "rename", lambda part, path: refuse_writing(path))
        assert page(copied_run.folder, "--data_dir", small_mnist) == 1
    assert "explorer.html cannot be written (Read-only file system): close it where" in capsys.readouterr().err
    assert page(copied_run.folder, "--data_dir", small_mnist) == 0
