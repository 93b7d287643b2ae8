"""Datasets: read as they are, refused by name if damaged, replaced by digits only if nobody asked for them."""

import json
import socket
import sys
import time

import numpy as np
import pytest
import torch
from helpers import SMALL, call_main, contents, write_idx, write_mnist

from support import data
from support.config import Config
from support.devices import ALONE
from support.errors import UserError

IMAGES = "t10k-images-idx3-ubyte"
LABELS = "t10k-labels-idx1-ubyte"


def test_idx_files_are_read_as_they_are(small_mnist):
    dataset = data.load("mnist", small_mnist)
    assert [tuple(tensor.shape) for tensor in dataset[1:]] == [(300, 784), (300,), (60, 784), (60,)]
    assert [tensor.dtype for tensor in dataset[1:3]] == [torch.uint8, torch.int64]
    assert dataset.train_labels[:12].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    bar = dataset.test_images[3].view(28, 28)[10:12, 6:22]
    assert (bar == 250).all()


def test_dataset_names_itself_and_its_classes(small_mnist):
    dataset = data.load("mnist", small_mnist)
    assert dataset.title == "MNIST"
    assert dataset.classes == tuple("0123456789")
    assert dataset.to("cpu").name == "mnist"


def test_pixels_lie_between_zero_and_one():
    images = torch.tensor([[0, 51, 255]], dtype=torch.uint8)
    assert data.pixels(images).tolist() == [[0, pytest.approx(0.2), 1]]
    assert images.tolist() == [[0, 51, 255]]  # not changed in place


def test_digits_have_the_form_of_mnist():
    dataset = data.load("digits", "nowhere")
    assert [tuple(tensor.shape) for tensor in dataset[1:]] == [(1500, 784), (1500,), (297, 784), (297,)]
    assert dataset.train_images.dtype == torch.uint8
    assert dataset.train_images.max() == 255
    assert set(dataset.test_labels.tolist()) == set(range(10))


def edit(name, change):
    """A function that changes the bytes of a file in a folder."""

    def damage(raw):
        content = (raw / name).read_bytes()
        (raw / name).write_bytes(change(content))

    return damage


DAMAGES = {
    "truncated images": (edit(IMAGES, lambda content: content[:-1]), "announces 60 items"),
    "truncated header": (edit(IMAGES, lambda content: content[:7]), "magic number 2051"),
    "empty": (edit(LABELS, lambda content: b""), "magic number 2049"),
    "wrong magic": (edit(LABELS, lambda content: b"\0\0\x08\x02" + content[4:]), "magic number 2049"),
    "label of 10": (edit(LABELS, lambda content: content[:-1] + b"\x0a"), "label 10"),
    "another count": (lambda raw: write_idx(raw / LABELS, 2049, np.zeros(59)), "60 images but .* 59 labels"),
    "another size": (lambda raw: write_idx(raw / IMAGES, 2051, np.zeros((60, 27, 28))), "items of 27x28"),
    "no items": (lambda raw: write_idx(raw / IMAGES, 2051, np.zeros((0, 28, 28))), "announces 0 items"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_file_is_refused_by_name(tmp_path, name):
    damage, message = DAMAGES[name]
    damage(write_mnist(tmp_path) / "MNIST" / "raw")
    with pytest.raises(UserError, match=message) as refusal:
        data.load("mnist", tmp_path)
    assert "t10k" in str(refusal.value)
    assert not isinstance(refusal.value, data.Unavailable)


def test_damaged_data_leave_finished_run_alone(copied_run, tmp_path):
    path = write_mnist(tmp_path / "data") / "MNIST" / "raw" / LABELS
    path.write_bytes(path.read_bytes()[:-5])
    before = contents(copied_run.folder)
    flags = ("--data_dir", tmp_path / "data", "--results_dir", copied_run.folder)
    done = call_main(*flags, *SMALL, "--epochs", 4)
    assert done.code == 1
    assert str(path) in done.err
    assert done.err.count("\n") == 1
    assert contents(copied_run.folder) == before


def test_server_that_never_answers_is_noticed(monkeypatch):
    monkeypatch.setattr(data, "PROBE_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never says a word
        start = time.monotonic()
        assert not data._answers(f"http://127.0.0.1:{silent.getsockname()[1]}/")
        assert time.monotonic() - start < 5


@pytest.fixture
def offline(monkeypatch):
    """No server answers."""
    monkeypatch.setattr(data, "_answers", lambda url: False)


def test_missing_data_without_network_name_the_ways_out(tmp_path, offline):
    with pytest.raises(data.Unavailable, match=r"train-images.*--data_dir.*--dataset digits"):
        data.load("mnist", tmp_path)


def test_missing_data_that_must_not_be_downloaded_are_named(tmp_path):
    with pytest.raises(data.Unavailable, match=r"train-images.*is missing on .*--data_dir"):
        data.load("mnist", tmp_path, download=False)


def test_digits_replace_mnist_nobody_asked_for(tmp_path, offline, capsys):
    dataset = data.find(Config(data_dir=tmp_path), None, ALONE)
    assert dataset.name == "digits"
    assert "GOING ON WITH --dataset digits, NOT MNIST" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("named", "saved_dataset"),
    [(frozenset({"dataset"}), None), (frozenset(), "mnist")],
    ids=["named by the user", "of the run to continue"],
)
def test_digits_do_not_replace_mnist_somebody_asked_for(tmp_path, offline, named, saved_dataset):
    with pytest.raises(data.Unavailable):
        data.find(Config(data_dir=tmp_path, named=named), saved_dataset, ALONE)


def test_run_on_digits_in_place_of_mnist_says_so(tmp_path, offline, no_drawing):
    flags = ("--data_dir", tmp_path / "none", "--results_dir", tmp_path / "results", *SMALL, "--epochs", 1)
    done = call_main(*flags)
    assert done.code == 0, done.err
    assert "WARNING" in done.err
    assert json.loads((tmp_path / "results" / "config.json").read_text())["dataset"] == "digits"
    assert call_main(*flags).code == 0  # the same command again means the same run
    refused = call_main(*flags, "--dataset", "mnist")
    assert refused.code == 1
    assert "--dataset digits" in refused.err
    assert refused.err.count("\n") == 1


def test_torchvision_is_not_imported_for_data_on_disk(small_mnist, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)  # importing it raises ImportError
    assert data.load("mnist", small_mnist).name == "mnist"
