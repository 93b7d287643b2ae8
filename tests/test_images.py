"""The user's own images: one sub-folder per class, read as grey 28 x 28, the same on every machine."""

import numpy as np
import pytest
import torch
from helpers import SMALL, call_main
from PIL import Image

from support.data import datasets, images
from support.errors import UserError
from support.run.config import Config


def write_image(path, grey=128, size=(40, 30)):
    """Write an image of one grey value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, grey).save(path)
    return path


def write_classes(folder, counts):
    """Write {class: number of images}; image i of class c has the grey value 10 * c + i."""
    for label, (name, n) in enumerate(counts.items()):
        for i in range(n):
            write_image(folder / name / f"{i:03d}.png", 10 * label + i)
    return folder


def load(folder):
    return datasets.load(str(folder), "nowhere")


def greys(tensor):
    """The grey value of each one-coloured image."""
    assert (tensor == tensor[:, :1]).all()
    return tensor[:, 0].tolist()


def test_sub_folders_are_classes_in_alphabetical_order(tmp_path):
    dataset = load(write_classes(tmp_path / "pets", {"dog": 8, "cat": 6}))
    assert dataset.title == "pets"
    assert dataset.classes == ("cat", "dog")
    assert (len(dataset.train_images), len(dataset.test_images)) == (12, 2)
    assert dataset.train_images.dtype == torch.uint8
    assert dataset.test_labels.dtype == torch.int64
    seen = greys(torch.cat([dataset.train_images, dataset.test_images]))
    labels = torch.cat([dataset.train_labels, dataset.test_labels]).tolist()
    cats = [grey for grey, label in zip(seen, labels, strict=True) if label == 0]
    assert sorted(cats) == [10, 11, 12, 13, 14, 15]  # write_classes wrote them second
    assert sorted(seen) == [*range(8), *range(10, 16)]


def test_split_is_the_same_for_every_seed(tmp_path):
    folder = write_classes(tmp_path, {"a": 30, "b": 40})
    one, other = (datasets.choose(Config(dataset=str(folder), seed=seed), None) for seed in (1, 2))
    assert len(one.test_images) == 10
    assert set(one.test_labels.tolist()) == {0, 1}
    assert torch.equal(one.test_images, other.test_images)
    assert torch.equal(one.train_images, other.train_images)


def test_train_and_test_folders_are_the_split(tmp_path):
    write_classes(tmp_path / "train", {"a": 3, "b": 2, "c": 1})
    write_classes(tmp_path / "test", {"b": 4, "c": 1})
    dataset = load(tmp_path)
    assert dataset.classes == ("a", "b", "c")
    assert dataset.train_labels.tolist() == [0, 0, 0, 1, 1, 2]
    assert dataset.test_labels.tolist() == [1, 1, 1, 1, 2]
    assert greys(dataset.test_images) == [0, 1, 2, 3, 10]


def test_classes_may_be_called_train_and_test(tmp_path):
    assert load(write_classes(tmp_path, {"train": 4, "plane": 4})).classes == ("plane", "train")


def test_files_in_folders_of_a_class_count_and_other_files_do_not(tmp_path):
    write_classes(tmp_path, {"a": 2, "b": 2})
    write_image(tmp_path / "a" / "more" / "x.PNG")
    for hidden in (".hidden/x.png", "__MACOSX/a/x.png", "a/._000.png", "a/.thumbs/x.png", "loose.png"):
        write_image(tmp_path / hidden)
    for other in (".DS_Store", "README.txt", "a/Thumbs.db", "a/labels.csv"):
        (tmp_path / other).write_text("no image")
    dataset = load(tmp_path)
    assert dataset.classes == ("a", "b")
    assert len(dataset.train_images) + len(dataset.test_images) == 5


def test_two_images_of_one_class_are_enough(tmp_path):
    dataset = load(write_classes(tmp_path, {"all": 2}))
    assert (len(dataset.train_images), len(dataset.test_images)) == (1, 1)


def test_image_of_28_x_28_is_not_changed(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (28, 28)).astype(np.uint8)
    Image.fromarray(values).save(tmp_path / "x.png")
    assert np.array_equal(images.read_image(tmp_path / "x.png").reshape(28, 28), values)


def test_whole_image_is_scaled_and_keeps_its_tones(tmp_path):
    picture = np.full((100, 300), 250, np.uint8)
    picture[:, 150:] = 20
    Image.fromarray(picture).save(tmp_path / "x.png")
    read = images.read_image(tmp_path / "x.png").reshape(28, 28)
    assert (read[:, :13] == 250).all()
    assert (read[:, 15:] == 20).all()


KINDS = {
    "colour": (Image.new("RGB", (50, 50), (255, 0, 0)), "x.png", 76),
    "jpeg": (Image.new("RGB", (500, 400), (90, 90, 90)), "x.JPG", 90),
    "cmyk": (Image.new("CMYK", (50, 50), (0, 0, 0, 255)), "x.jpeg", 0),
    "black and white": (Image.new("1", (50, 50), 1), "x.bmp", 255),
    "16 bits": (Image.fromarray(np.full((50, 50), 257 * 100, np.uint16)), "x.tif", 100),
    "16 bits in png": (Image.fromarray(np.full((50, 50), 257 * 100, np.uint16)), "x.png", 100),
    "transparent": (Image.new("RGBA", (50, 50), (0, 0, 0, 0)), "x.png", 255),
    "opaque": (Image.new("RGBA", (50, 50), (0, 0, 0, 255)), "x.webp", 0),
    "palette": (Image.new("RGB", (50, 50), (0, 255, 0)).quantize(4), "x.png", 150),
    "one pixel": (Image.new("L", (1, 1), 33), "x.pgm", 33),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_image_becomes_grey(tmp_path, kind):
    image, name, grey = KINDS[kind]
    image.save(tmp_path / name)
    read = images.read_image(tmp_path / name)
    assert read.shape == (784,)
    assert read.dtype == np.uint8
    assert np.abs(read.astype(int) - grey).max() <= 2


def test_photo_that_was_taken_sideways_is_upright(tmp_path):
    picture = np.zeros((60, 60), np.uint8)
    picture[:30] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by half
    Image.fromarray(picture).save(tmp_path / "x.jpg", exif=exif)
    read = images.read_image(tmp_path / "x.jpg").reshape(28, 28)
    assert read[5].mean() < 20
    assert read[22].mean() > 235


def damage_png(folder):
    path = folder / "a" / "001.png"
    path.write_bytes(path.read_bytes()[:-30])
    return path


def fill_with_text(folder):
    path = folder / "b" / "000.png"
    path.write_text("no image")
    return path


def empty_file(folder):
    path = folder / "b" / "000.png"
    path.write_bytes(b"")
    return path


def half_a_photo(folder):
    path = folder / "b" / "x.jpg"
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (200, 200)).astype(np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:5000])
    return path


@pytest.mark.parametrize("damage", [damage_png, fill_with_text, empty_file, half_a_photo])
def test_unreadable_image_is_named(tmp_path, damage):
    path = damage(write_classes(tmp_path, {"a": 3, "b": 3}))
    with pytest.raises(UserError) as refusal:
        load(tmp_path)
    assert str(refusal.value).startswith(f"{path} cannot be read as an image (")
    assert "\n" not in str(refusal.value)


def test_link_to_nothing_is_named(tmp_path):
    write_classes(tmp_path, {"a": 3})
    (tmp_path / "a" / "x.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(FileNotFoundError) as refusal:
        load(tmp_path)
    # Pillow 10 names the target, later ones the link.
    assert str(refusal.value.filename) in {str(tmp_path / "gone.png"), str(tmp_path / "a" / "x.png")}


REFUSED = {
    "nothing": ({}, "has no sub-folders: make one for each class"),
    "empty class": ({"a": 2, "b": 0}, r"b holds no image \(\.bmp, .*\)"),
    "one image": ({"a": 1}, "holds a single image"),
    "21 classes": ({f"c{i}": 1 for i in range(21)}, "has 21 sub-folders: at most 20"),
    "only train": ({"train/a": 2, "train/b": 2}, "has classes in train but not in its counterpart"),
    "another class in test": ({"train/a": 2, "test/b": 2}, "b is a class that .*train does not have"),
    "empty test": ({"train/a": 2, "test/a": 0}, "a holds no image"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_folder_of_another_form_is_refused(tmp_path, name):
    counts, message = REFUSED[name]
    for place, n in counts.items():
        (tmp_path / place).mkdir(parents=True)
        write_classes((tmp_path / place).parent, {(tmp_path / place).name: n})
    with pytest.raises(UserError, match=message) as refusal:
        load(tmp_path)
    assert str(tmp_path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_long_class_name_is_shortened(tmp_path):
    assert load(write_classes(tmp_path, {"a name of thirty letters or so": 2})).classes == ("a name of thirty le…",)


def test_pictures_show_own_images_as_they_are(tmp_path):
    for name in ("a", "b"):
        write_image(tmp_path / "images" / name / "x.png", 250)
        write_image(tmp_path / "images" / name / "y.png", 250)
    folder = tmp_path / "results"
    assert call_main("--dataset", tmp_path / "images", "--results_dir", folder, *SMALL, "--epochs", 1).code == 0
    with Image.open(folder / "reconstruction" / "epoch_001.png") as picture:
        values = np.asarray(picture)
    assert (values == 250).sum() >= (3 * 28) ** 2
    assert values.min() < 100  # the title


def test_folder_that_is_gone_is_named(tmp_path):
    with pytest.raises(UserError, match="gone is not a directory"):
        load(tmp_path / "gone")


def test_run_on_a_folder_and_the_same_command_again(tmp_path, monkeypatch, no_drawing):
    monkeypatch.chdir(write_classes(tmp_path / "pets", {"cat": 20, "dog": 20}).parent)
    flags = ("--dataset", "pets", "--results_dir", "results", *SMALL, "--epochs", 1)
    assert call_main(*flags).code == 0
    done = call_main(*flags)
    assert done.code == 0
    assert "All 1 epochs" in done.out
    refused = call_main(*flags, "--dataset", "digits")
    assert f"--dataset {tmp_path / 'pets'} there, digits here" in refused.err


MORE_FLAGS = (("--latent_dim", "3"), ("--latent_dim", "1"), ("--prior", "vamp"))


@pytest.mark.parametrize("counts", [{"all": 2}, {f"class {i}": 2 for i in range(20)}], ids=["2 images", "20 classes"])
@pytest.mark.parametrize(
    "flags", [(), *(pytest.param(flags, marks=pytest.mark.slow) for flags in MORE_FLAGS)], ids=" ".join
)
def test_smallest_and_widest_folders_make_a_whole_run(tmp_path, flags, counts):
    folder = write_classes(tmp_path / "images", counts)
    done = call_main("--dataset", folder, "--results_dir", tmp_path / "results", *SMALL, "--epochs", 1, *flags)
    assert done.code == 0, done.err
    assert done.err == ""
    assert (tmp_path / "results" / "samples.png").exists()
