"""Datasets: read as they are, refused by name if damaged, replaced by digits only if nobody asked for them."""

import gzip
import json
import os
import pickle
import shutil
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import SMALL, call_main, contents, metrics, write_idx, write_mnist

from support.data import datasets, download, idx
from support.errors import UserError
from support.run.config import Config
from variants import binary

IMAGES = "t10k-images-idx3-ubyte"
LABELS = "t10k-labels-idx1-ubyte"


def test_idx_files_are_read_as_they_are(small_mnist):
    dataset = datasets.load("mnist", small_mnist)
    assert [tuple(tensor.shape) for tensor in dataset[1:5]] == [(300, 784), (300,), (60, 784), (60,)]
    assert [tensor.dtype for tensor in dataset[1:3]] == [torch.uint8, torch.int64]
    assert dataset.train_labels[:12].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    bar = dataset.test_images[3].view(28, 28)[10:12, 6:22]
    assert (bar == 250).all()


def test_dataset_names_itself_and_its_classes(small_mnist):
    dataset = datasets.load("mnist", small_mnist)
    assert dataset.title == "MNIST"
    assert dataset.classes == tuple("0123456789")
    assert dataset.to("cpu")[5:] == dataset[5:]
    assert dataset.to("cpu").name == "mnist"


@pytest.mark.parametrize(
    ("name", "title", "first", "last"),
    [
        ("fashion_mnist", "Fashion-MNIST", "T-shirt", "Ankle boot"),
        ("kmnist", "KMNIST", "o", "wo"),
    ],
)
def test_dataset_in_the_form_of_mnist_has_its_own_classes(small_mnist, tmp_path, name, title, first, last):
    shutil.copytree(small_mnist / "MNIST", tmp_path / idx.FOLDERS[name])
    dataset = datasets.load(name, tmp_path)
    assert dataset.title == title
    assert len(dataset.classes) == 10
    assert (dataset.classes[0], dataset.classes[9]) == (first, last)


def test_pixels_lie_between_zero_and_one():
    images = torch.tensor([[0, 51, 255]], dtype=torch.uint8)
    assert datasets.pixels(images).tolist() == [[0, pytest.approx(0.2), 1]]
    assert images.tolist() == [[0, 51, 255]]  # not changed in place


def test_binary_mnist_is_a_draw_from_mnist_with_its_labels(small_mnist):
    grey = datasets.load("mnist", small_mnist)
    dataset = datasets.load("binary_mnist", small_mnist)
    assert (dataset.name, dataset.title, dataset.classes) == ("binary_mnist", "binary MNIST", grey.classes)
    assert dataset.is_ink
    for images, drawn in ((grey.train_images, dataset.train_images), (grey.test_images, dataset.test_images)):
        assert drawn.dtype == torch.uint8
        assert drawn.unique().tolist() == [0, 255]
        p = images.double() / 255
        assert abs((drawn / 255 - p).sum()) < 4 * (p * (1 - p)).sum().sqrt()
    assert torch.equal(dataset.train_labels, grey.train_labels)
    assert torch.equal(dataset.test_labels, grey.test_labels)


def test_binary_pixels_have_the_same_bits_on_every_machine():
    ramp = torch.arange(256, dtype=torch.uint8).repeat(40, 1)
    drawn = binary.binarise(ramp, 0, 1)
    assert zlib.crc32(drawn.numpy().tobytes()) == 0x92F03E18
    assert not torch.equal(binary.binarise(ramp, 0, 2), drawn)
    assert ramp[0].tolist() == list(range(256))  # not changed in place


def test_binary_pixels_are_ink_as_often_as_their_value_says():
    ramp = torch.arange(256, dtype=torch.uint8).repeat(4000, 1)
    p = torch.arange(256) / 255
    deviation = (p * (1 - p) / len(ramp)).sqrt()
    frequency = binary.binarise(ramp, 3).double().div(255).mean(0)
    assert (frequency[0], frequency[-1]) == (0, 1)
    scores = ((frequency - p) / deviation)[1:-1]
    assert scores.abs().max() < 5
    assert scores.square().mean() == pytest.approx(1, abs=0.4)


def test_digits_have_the_form_of_mnist():
    dataset = datasets.load("digits", "nowhere")
    assert [tuple(tensor.shape) for tensor in dataset[1:5]] == [(1500, 784), (1500,), (297, 784), (297,)]
    assert dataset.train_images.dtype == torch.uint8
    assert dataset.train_images.max() == 255
    seen = dataset.train_images.view(-1, 28, 28).amax(0) > 0
    rows, columns = (seen.any(dim).nonzero() for dim in (1, 0))
    assert rows.min() >= 4  # in a box of 20 x 20, as MNIST's
    assert rows.max() <= 23
    assert columns.min() >= 4
    assert columns.max() <= 23
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
        datasets.load("mnist", tmp_path)
    assert "t10k" in str(refusal.value)
    assert not isinstance(refusal.value, datasets.Unavailable)


def compress(raw, keep_unpacked):
    """Write the .gz of each file in a folder."""
    for path in sorted(raw.iterdir()):
        archive = raw / f"{path.name}.gz"
        archive.write_bytes(gzip.compress(path.read_bytes()))
        if not keep_unpacked:
            path.unlink()


@pytest.mark.parametrize("keep_unpacked", [False, True])
def test_archives_are_used_without_network_and_without_writing(tmp_path, monkeypatch, keep_unpacked):
    monkeypatch.setattr(datasets, "fetch", None)
    raw = write_mnist(tmp_path) / "MNIST" / "raw"
    expected = datasets.load("mnist", tmp_path)
    compress(raw, keep_unpacked)
    before = contents(tmp_path)
    dataset = datasets.load("mnist", tmp_path)
    assert all(torch.equal(one, other) for one, other in zip(dataset[1:5], expected[1:5], strict=True))
    assert contents(tmp_path) == before


@pytest.mark.parametrize("change", [lambda c: c[:-20], lambda c: b"no gzip", lambda c: c[:100] + b"\0\0" + c[102:]])
def test_damaged_archive_is_refused_by_name(tmp_path, change):
    raw = write_mnist(tmp_path) / "MNIST" / "raw"
    compress(raw, keep_unpacked=False)
    edit(f"{IMAGES}.gz", change)(raw)
    with pytest.raises(UserError, match=rf"{IMAGES}\.gz is damaged \(.*\); delete the file"):
        datasets.load("mnist", tmp_path)


@pytest.mark.parametrize("level", ["", "MNIST", "MNIST/raw"])
def test_data_dir_may_name_the_folders_below_it(small_mnist, monkeypatch, level):
    assert len(datasets.load("mnist", small_mnist / level, download=False).train_images) == 300
    monkeypatch.chdir(small_mnist / level)
    assert len(datasets.load("mnist", ".", download=False).train_images) == 300


def test_data_dir_of_another_dataset_is_not_taken(small_mnist):
    raw = small_mnist / "MNIST" / "raw"
    with pytest.raises(datasets.Unavailable, match=r"train-images.* is not in .*fashion_mnist is not downloaded"):
        datasets.load("fashion_mnist", raw, download=False)


@pytest.mark.parametrize("text", ["~/x", "$HOME/x", "${HOME}/x"])
@pytest.mark.parametrize("place", ["--data_dir", "VAE_DATA_DIR"])
def test_home_is_expanded_and_no_folder_named_like_it_is_made(tmp_path, monkeypatch, no_drawing, text, place):
    write_mnist(tmp_path / "home" / "x")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    flags = ("--data_dir", text)
    if place == "VAE_DATA_DIR":
        monkeypatch.setenv("VAE_DATA_DIR", text)
        flags = ()
    done = call_main(*flags, f"--results_dir={text}/results", *SMALL, "--epochs", 1)
    assert done.code == 0, done.err
    assert (tmp_path / "home" / "x" / "results" / "metrics.csv").exists()
    assert list((tmp_path / "here").iterdir()) == []


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


@pytest.fixture
def offline(monkeypatch):
    """No server answers."""
    monkeypatch.setattr(download, "_fetch", lambda *where: "no network")


@pytest.mark.parametrize("name", ["mnist", "binary_mnist"])
def test_missing_data_without_network_name_the_ways_out(tmp_path, offline, name):
    with pytest.raises(datasets.Unavailable, match=r"train-images.*--data_dir.*--dataset digits"):
        datasets.load(name, tmp_path)


@pytest.mark.parametrize("name", ["mnist", "binary_mnist"])
def test_missing_data_that_must_not_be_downloaded_are_named(tmp_path, name):
    with pytest.raises(datasets.Unavailable, match=r"train-images.*is not downloaded on .*--data_dir"):
        datasets.load(name, tmp_path, download=False)


@pytest.fixture
def nowhere(tmp_path, monkeypatch, offline):
    """A working directory without data, in which nobody has said where data are."""
    monkeypatch.delenv("VAE_DATA_DIR", raising=False)
    (tmp_path / "nowhere").mkdir()
    monkeypatch.chdir(tmp_path / "nowhere")
    return tmp_path / "nowhere"


def test_digits_replace_mnist_nobody_asked_for(nowhere, capsys):
    dataset = datasets.choose(Config(), may_be_digits=True)
    assert dataset.name == "digits"
    assert "GOING ON WITH --dataset digits, NOT MNIST" in capsys.readouterr().err


@pytest.mark.parametrize("named", ["dataset", "data_dir"])
def test_digits_do_not_replace_what_was_named(nowhere, named):
    with pytest.raises(datasets.Unavailable):
        datasets.choose(Config(named=frozenset({named})), may_be_digits=True)


def test_digits_do_not_replace_mnist_where_a_variable_names_its_place(nowhere, monkeypatch):
    monkeypatch.setenv("VAE_DATA_DIR", "elsewhere")
    done = call_main("--results_dir", "results", *SMALL)
    assert done.code == 1
    assert "train-images-idx3-ubyte is not in elsewhere" in done.err


BESIDE = {
    "one of the four": "train-images.idx3-ubyte",
    "emnist": "emnist-letters-train-images-idx3-ubyte.gz",
    "qmnist": "qmnist-train-labels-idx2-int.gz",
    "csv": "mnist_train.csv",
    "parquet": "train-00000-of-00001.parquet",
}


@pytest.mark.parametrize("kind", BESIDE)
@pytest.mark.parametrize("place", ["data", "data/mnist", "data/MNIST/raw"])
def test_digits_never_replace_files_that_are_there(nowhere, kind, place):
    (nowhere / place).mkdir(parents=True)
    (nowhere / place / BESIDE[kind]).write_bytes(b"something")
    done = call_main("--results_dir", "results", *SMALL)
    assert done.code == 1
    assert "GOING ON" not in done.err
    if kind != "one of the four":
        assert f"in another form: {Path(place, BESIDE[kind])}." in done.err


@pytest.mark.parametrize(
    "flags", [(), ("--resume", "--data_dir", "gone"), ("--overwrite",)], ids=["plain", "resume", "overwrite"]
)
@pytest.mark.parametrize("damage", [None, "checkpoint.pt"], ids=["whole", "damaged"])
def test_digits_never_enter_a_directory_that_holds_a_run_on_mnist(copied_run, nowhere, flags, damage):
    if damage:
        (copied_run.folder / damage).write_bytes(b"damaged")
    before = contents(copied_run.folder)
    done = call_main("--results_dir", copied_run.folder, *SMALL, "--epochs", 4, *flags)
    assert done.code == 1
    assert done.err.count("\n") == 1
    assert "GOING ON" not in done.err
    assert contents(copied_run.folder) == before


def test_run_on_digits_in_place_of_mnist_says_so(nowhere, tmp_path, no_drawing):
    flags = ("--results_dir", tmp_path / "results", *SMALL, "--epochs", 1)
    done = call_main(*flags)
    assert done.code == 0, done.err
    assert "WARNING" in done.err
    first, *_, said_again, _, _, _ = done.out.splitlines()
    assert "WARNING: not MNIST" in first
    assert said_again.replace("====> Trained", "Training") == first
    assert json.loads((tmp_path / "results" / "config.json").read_text())["dataset"] == "digits"
    assert call_main(*flags).code == 0  # the same command again means the same run
    refused = call_main(*flags, "--dataset", "mnist")
    assert refused.code == 1
    assert "--dataset digits" in refused.err
    assert refused.err.count("\n") == 1


def test_run_on_binary_mnist_names_it_and_is_continued(run_main, tmp_path, no_drawing):
    flags = ("--dataset", "binary_mnist", *SMALL, "--epochs")
    done = run_main(tmp_path, *flags, 1)
    assert done.code == 0, done.err
    assert json.loads((tmp_path / "config.json").read_text())["dataset"] == "binary_mnist"
    assert "on binary MNIST" in done.out
    assert run_main(tmp_path, *flags, 2).code == 0
    assert len(metrics(tmp_path)) == 2
    refused = run_main(tmp_path, "--dataset", "mnist", *SMALL, "--epochs", 2)
    assert refused.code == 1
    assert "--dataset binary_mnist" in refused.err


def test_missing_mnist_ends_a_run_on_binary_mnist_in_a_line(tmp_path, offline):
    done = call_main(
        "--dataset", "binary_mnist", "--data_dir", tmp_path / "none", "--results_dir", tmp_path / "results"
    )
    assert done.code == 1
    assert done.err.count("\n") == 1
    assert "train-images" in done.err


def test_other_contents_under_the_names_of_mnist_are_told_to_a_run_on_binary_mnist(small_mnist, monkeypatch):
    monkeypatch.setattr(datasets, "files_with_other_contents", download.files_with_other_contents)
    dataset = datasets.choose(Config(dataset="binary_mnist", data_dir=small_mnist), may_be_digits=False)
    assert "WARNING: not the published contents of train-images" in dataset.description


def test_torchvision_is_not_imported_for_data_on_disk(small_mnist, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)  # importing it raises ImportError
    assert datasets.load("mnist", small_mnist).name == "mnist"


# MNIST as people have it


def idx_files(folder):
    """The four files of the stand-in for MNIST: {name: bytes}."""
    return {path.name: path.read_bytes() for path in sorted((folder / "MNIST" / "raw").iterdir())}


def flat(files, folder):
    for name, content in files.items():
        (folder / name).write_bytes(content)


def dotted(files, folder):
    flat({name.replace("-idx", ".idx"): content for name, content in files.items()}, folder)


def dotted_and_packed(files, folder):
    flat({f"{name.replace('-idx', '.idx')}.gz": gzip.compress(content) for name, content in files.items()}, folder)


def in_folders_of_their_names(files, folder):
    for name, content in files.items():
        (folder / name).mkdir()
        (folder / name / name).write_bytes(content)


def in_mnist(files, folder):
    (folder / "MNIST").mkdir()
    dotted(files, folder / "MNIST")


def from_keras(files, folder):
    arrays = [np.frombuffer(content, np.uint8) for content in files.values()]
    test_images, test_labels, images, labels = arrays  # in alphabetical order
    images, test_images = (values[16:].reshape(-1, 28, 28) for values in (images, test_images))
    np.savez(folder / "mnist.npz", x_train=images, y_train=labels[8:], x_test=test_images, y_test=test_labels[8:])


def from_theano(files, folder, protocol=2):
    """As the tutorials' mnist.pkl.gz: float32 k/256, the last sixth of the training set for validation."""
    arrays = [np.frombuffer(content, np.uint8) for content in files.values()]
    test_images, test_labels, images, labels = arrays
    x, test_x = ((values[16:].reshape(-1, 784) / 256).astype(np.float32) for values in (images, test_images))
    y, test_y = (values[8:].astype(np.int64) for values in (labels, test_labels))
    n = len(x) * 5 // 6
    content = pickle.dumps(((x[:n], y[:n]), (x[n:], y[n:]), (test_x, test_y)), protocol)
    (folder / "mnist.pkl.gz").write_bytes(gzip.compress(content))


FORMS = (flat, dotted, dotted_and_packed, in_folders_of_their_names, in_mnist, from_keras)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_mnist_is_read_and_named_in_every_form(small_mnist, tmp_path, form):
    form(idx_files(small_mnist), tmp_path)
    expected = datasets.load("mnist", small_mnist)
    dataset = datasets.load("mnist", tmp_path, download=False)
    assert torch.equal(dataset.checksums, expected.checksums)
    assert f"; read from {tmp_path}" in dataset.description


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_run_on_every_form_of_mnist_is_complete(small_mnist, tmp_path, form, no_drawing):
    (tmp_path / "data").mkdir()
    form(idx_files(small_mnist), tmp_path / "data")
    done = call_main("--data_dir", tmp_path / "data", "--results_dir", tmp_path / "results", *SMALL, "--epochs", 1)
    assert done.code == 0, done.err
    assert f"; read from {tmp_path / 'data'}" in done.out.splitlines()[0]


@pytest.fixture
def bright_mnist(small_mnist, tmp_path):
    """The stand-in's files, with one pixel of 255, as MNIST has."""
    files = idx_files(small_mnist)
    name = "train-images-idx3-ubyte"
    return {**files, name: files[name][:-1] + b"\xff"}


@pytest.mark.parametrize("protocol", [2, *(pytest.param(n, marks=pytest.mark.slow) for n in (4, 5))])
def test_pickled_mnist_of_theano_is_mnist(bright_mnist, tmp_path, protocol):
    places = [tmp_path / name for name in ("idx", "theano")]
    for place in places:
        place.mkdir()
    flat(bright_mnist, places[0])
    from_theano(bright_mnist, places[1], protocol)
    one, other = (datasets.load("mnist", place, download=False) for place in places)
    assert torch.equal(one.checksums, other.checksums)
    assert "read from" in other.description


def test_pickle_that_calls_anything_is_refused_and_calls_nothing(tmp_path):
    class Hostile:
        def __reduce__(self):
            return open, (str(tmp_path / "hacked"), "w")

    (tmp_path / "mnist.pkl.gz").write_bytes(gzip.compress(pickle.dumps(Hostile())))
    with pytest.raises(UserError, match=r"mnist\.pkl\.gz .*it would call (_io|io)\.open"):
        datasets.load("mnist", tmp_path, download=False)
    assert not (tmp_path / "hacked").exists()


@pytest.mark.parametrize("name", ["mnist.npz", "mnist.pkl.gz"])
def test_damaged_file_of_another_form_is_refused_by_name(tmp_path, name):
    (tmp_path / name).write_bytes(b"damaged")
    with pytest.raises(UserError, match="delete the file to download it again, or name another --data_dir") as refusal:
        datasets.load("mnist", tmp_path, download=False)
    assert str(tmp_path / name) in str(refusal.value)


@pytest.mark.parametrize(("dtype", "n"), [("float32", 5), ("int64", 5), ("uint8", 0)])
def test_whole_file_of_other_numbers_than_bytes_is_refused(tmp_path, dtype, n):
    """Images that are already in [0, 1] would be divided by 255 again."""
    images, labels = np.zeros((n, 28, 28), dtype), np.zeros(n, np.uint8)
    np.savez(tmp_path / "mnist.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    with pytest.raises(UserError, match=r"mnist\.npz is damaged, or not what its name says \(.*(bytes|no images)\)"):
        datasets.load("mnist", tmp_path, download=False)


@pytest.mark.parametrize("value", [-1.0, np.nan])
def test_pickled_images_that_are_scaled_otherwise_are_refused(tmp_path, value):
    """From -1 to 1, negative values would become bright ones."""
    images, labels = np.array([[value, *[1.0] * 783]], np.float32), np.zeros(1, int)
    (tmp_path / "mnist.pkl.gz").write_bytes(gzip.compress(pickle.dumps([(images, labels)] * 3)))
    with pytest.raises(UserError, match=r"mnist\.pkl\.gz is damaged, or not what its name says"):
        datasets.load("mnist", tmp_path, download=False)


def test_negative_label_is_refused(tmp_path):
    images, labels = np.zeros((2, 28, 28), np.uint8), np.array([0, -1])
    np.savez(tmp_path / "mnist.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    with pytest.raises(UserError, match="holds a label -1, outside 0-9"):
        datasets.load("mnist", tmp_path, download=False)


def test_emnist_under_the_names_of_mnist_is_refused(small_mnist, tmp_path):
    files = idx_files(small_mnist)
    files[LABELS] = files[LABELS][:-1] + bytes([61])
    flat(files, tmp_path)
    with pytest.raises(UserError, match="holds a label 61, outside 0-9, as EMNIST"):
        datasets.load("mnist", tmp_path, download=False)


@pytest.mark.skipif("VAE_DATA_DIR" not in os.environ, reason="needs the real MNIST")
def test_real_mnist_flat_in_a_folder_is_known_as_published(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "files_with_other_contents", download.files_with_other_contents)
    for path in Path(os.environ["VAE_DATA_DIR"], "MNIST", "raw").iterdir():
        (tmp_path / path.name).symlink_to(path)
    description = datasets.load("mnist", tmp_path, download=False).description
    assert description == f"MNIST: 60,000 images, and 10,000 to test, in 10 classes; read from {tmp_path}"


def test_first_line_and_config_json_say_what_is_trained_on(finished_run):
    first = finished_run.done.out.splitlines()[0]
    assert first == "Training on MNIST: 300 images, and 60 to test, in 10 classes"
    facts = json.loads((finished_run.folder / "config.json").read_text())
    assert f"Training on {facts['data']}" == first


def test_name_that_is_also_a_folder_says_which_is_used(tmp_path, monkeypatch, no_drawing):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    done = call_main("--dataset", "digits", "--results_dir", "results", *SMALL, "--epochs", 1)
    assert "the folder ./digits is not used; --dataset ./digits names it" in done.out.splitlines()[0]
    other = call_main("--dataset", "./digits", "--results_dir", "other")
    assert other.err.startswith(f"main.py: error: {tmp_path / 'digits'} holds no image")
