import shutil
import socket
import time

import numpy as np
import pytest
import torch
from conftest import write_idx

import data
from errors import UserError


def test_idx_files_are_read_as_they_are(small_mnist):
    dataset = data.load("mnist", small_mnist)
    assert [tuple(t.shape) for t in dataset[1:]] == [(300, 784), (300,), (60, 784), (60,)]
    assert dataset.train_labels[:12].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    assert (dataset.test_images[3].view(28, 28)[10:12, 6:22] == 250).all(), "image 3 has its bar elsewhere"


def test_pixels_lie_in_the_unit_interval():
    assert data.pixels(torch.tensor([[0, 51, 255]], dtype=torch.uint8)).tolist() == [[0, pytest.approx(0.2), 1]]


def test_digits_are_scikit_learns_in_mnists_form():
    dataset = data.load("digits", "nowhere")
    assert [len(t) for t in dataset[1:]] == [1500, 1500, 297, 297]
    assert dataset.train_images.shape[1] == 784 and dataset.train_images.dtype == torch.uint8
    assert set(dataset.test_labels.tolist()) == set(range(10))
    assert dataset.train_images.max() == 255


def damaged(raw, name, edit):
    path = raw / name
    path.write_bytes(edit(path.read_bytes()))


IMAGES, LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
DAMAGES = {
    "truncated images": (lambda raw: damaged(raw, IMAGES, lambda b: b[:-1]), "announces 60 items"),
    "truncated header": (lambda raw: damaged(raw, IMAGES, lambda b: b[:7]), "magic number 2051"),
    "empty": (lambda raw: damaged(raw, LABELS, lambda b: b""), "magic number 2049"),
    "wrong magic": (lambda raw: damaged(raw, LABELS, lambda b: b"\0\0\x08\x02" + b[4:]), "magic number 2049"),
    "a label of 10": (lambda raw: damaged(raw, LABELS, lambda b: b[:-1] + b"\x0a"), "label 10"),
    "another count": (lambda raw: write_idx(raw / LABELS, 2049, np.zeros(59)), "60 images but .* 59 labels"),
    "another size": (lambda raw: write_idx(raw / IMAGES, 2051, np.zeros((60, 27, 28))), "items of 27x28"),
    "no items": (lambda raw: write_idx(raw / IMAGES, 2051, np.zeros((0, 28, 28))), "announces 0 items"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_are_refused_by_name(tmp_path, small_mnist, damage):
    shutil.copytree(small_mnist, tmp_path, dirs_exist_ok=True)
    harm, message = DAMAGES[damage]
    harm(tmp_path / "MNIST" / "raw")
    with pytest.raises(UserError, match=message) as raised:
        data.load("mnist", tmp_path)
    assert "t10k" in str(raised.value) and not isinstance(raised.value, data.Unavailable)


def test_a_network_that_swallows_everything_is_noticed(monkeypatch):
    monkeypatch.setattr(data, "PROBE_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never says a word
        start = time.monotonic()
        assert not data._answers(f"http://127.0.0.1:{silent.getsockname()[1]}/")
        assert time.monotonic() - start < 5


def test_missing_and_unreachable_names_the_ways_out(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "_answers", lambda url: False)
    with pytest.raises(data.Unavailable, match=r"train-images.*--data_dir.*--dataset digits"):
        data.load("mnist", tmp_path)
