"""The user's own images: one sub-folder per class, read as grey 28 x 28, the same on every machine."""

import json
import os
import sys

import numpy as np
import pytest
import torch
from helpers import SMALL, call_main
from PIL import Image, features

from support.data import datasets
from support.errors import UserError
from variants import images


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


def grey_values(path):
    """The 784 grey values of one image file."""
    return images.decode_all([str(path)])[0][0]


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


def test_split_is_the_same_each_time(tmp_path):
    folder = write_classes(tmp_path, {"a": 30, "b": 40})
    one, other = (load(folder) for _ in range(2))
    assert len(one.test_images) == 10
    assert np.bincount(one.test_labels).tolist() == [4, 6]
    assert torch.equal(one.checksums, other.checksums)


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
    assert np.array_equal(grey_values(tmp_path / "x.png").reshape(28, 28), values)


def test_whole_image_is_scaled_and_keeps_its_tones(tmp_path):
    picture = np.full((100, 300), 250, np.uint8)
    picture[:, 150:] = 20
    Image.fromarray(picture).save(tmp_path / "x.png")
    read = grey_values(tmp_path / "x.png").reshape(28, 28)
    assert (read[:, :13] == 250).all()
    assert (read[:, 15:] == 20).all()


KINDS = {
    "colour": (Image.new("RGB", (50, 50), (255, 0, 0)), "x.png", 76),
    "jpeg": (Image.new("RGB", (500, 400), (90, 90, 90)), "x.JPG", 90),
    "cmyk": (Image.new("CMYK", (50, 50), (0, 0, 0, 255)), "x.jpeg", 0),
    "black and white": (Image.new("1", (50, 50), 1), "x.bmp", 255),
    "16 bits": (Image.fromarray(np.full((50, 50), 257 * 200, np.uint16)), "x.tif", 200),
    "16 bits in png": (Image.fromarray(np.full((50, 50), 257 * 200, np.uint16)), "x.png", 200),
    "jfif": (Image.new("RGB", (50, 50), (90, 90, 90)), "x.jfif", 90),
    "gif": (Image.new("L", (50, 50), 70), "x.gif", 70),
    "transparent": (Image.new("RGBA", (50, 50), (0, 0, 0, 0)), "x.png", 255),
    "opaque": (Image.new("RGBA", (50, 50), (0, 0, 0, 255)), "x.webp", 0),
    "palette": (Image.new("RGB", (50, 50), (0, 255, 0)).quantize(4), "x.png", 150),
    "one pixel": (Image.new("L", (1, 1), 33), "x.pgm", 33),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_image_becomes_grey(tmp_path, kind):
    image, name, grey = KINDS[kind]
    image.save(tmp_path / name, **({"format": "JPEG"} if name.endswith("jfif") else {}))
    read = grey_values(tmp_path / name)
    assert read.shape == (784,)
    assert read.dtype == np.uint8
    assert np.abs(read.astype(int) - grey).max() <= 2


def test_first_frame_of_a_film_is_read(tmp_path):
    frames = [Image.new("L", (50, 50), grey) for grey in (70, 200)]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    assert np.abs(grey_values(tmp_path / "x.gif").astype(int) - 70).max() <= 2


@pytest.mark.skipif(not features.check("avif"), reason="needs a Pillow with avif")
def test_avif_is_read(tmp_path):
    Image.new("L", (50, 50), 90).save(tmp_path / "x.avif")
    assert np.abs(grey_values(tmp_path / "x.avif").astype(int) - 90).max() <= 2


def test_photo_that_was_taken_sideways_is_upright(tmp_path):
    picture = np.zeros((60, 60), np.uint8)
    picture[:30] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by half
    Image.fromarray(picture).save(tmp_path / "x.jpg", exif=exif)
    read = grey_values(tmp_path / "x.jpg").reshape(28, 28)
    assert read[5].mean() < 20
    assert read[22].mean() > 235


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_tiff_that_was_scanned_sideways_is_upright(tmp_path, orientation):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 40), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.save(tmp_path / "x.png", exif=exif)
    picture.save(tmp_path / "x.tif", tiffinfo={0x0112: orientation})
    np.testing.assert_array_equal(grey_values(tmp_path / "x.tif"), grey_values(tmp_path / "x.png"))


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
    assert str(refusal.value).startswith(f"1 file cannot be read as images: {path} (")
    assert "\n" not in str(refusal.value)


def test_link_to_nothing_is_named(tmp_path):
    write_classes(tmp_path, {"a": 3})
    (tmp_path / "a" / "x.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(UserError, match=r"x\.png") as refusal:
        load(tmp_path)
    assert "No such file" in str(refusal.value)


REFUSED = {
    "nothing": ({}, r"holds no image \(\.avif, .*\): put some there"),
    "empty class": ({"a": 0}, "holds no image"),
    "one image": ({"a": 1}, "holds a single image of each class"),
    "one image of each class": ({"a": 1, "b": 1}, "holds a single image of each class"),
    "21 classes": ({f"c{i}": 1 for i in range(21)}, "has 21 sub-folders with images: keep at most 20"),
    "another class in test": ({"train/a": 2, "test/b": 2}, "test images of b, which is no class to train on"),
    "test without classes": (
        {"train/a": 2, "train/b": 2, "test": 2},
        "only one of train and test has classes: name .*train",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_folder_of_another_form_is_refused(tmp_path, name):
    counts, message = REFUSED[name]
    for place, n in counts.items():
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        write_classes((tmp_path / place).parent, {(tmp_path / place).name: n})
    with pytest.raises(UserError, match=message) as refusal:
        load(tmp_path)
    assert str(tmp_path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_long_class_name_is_shortened(tmp_path):
    assert load(write_classes(tmp_path, {"a name of thirty letters or so": 2})).classes == ("a name of t…rs or so",)


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


# What was read, and how


SEVENTH = "a seventh of each class is for testing"
LAYOUTS = {
    "two classes": (
        {"cat": 7, "dog": 14},
        f"18 images, and 3 to test, in 2 classes: cat, dog; {SEVENTH}",
    ),
    "MNIST as PNGs": (
        {"training/0": 3, "training/1": 3, "testing/0": 2, "testing/1": 2},
        ("6 images, and 4 to test, in 2 classes: 0, 1; trained on training, tested on testing"),
    ),
    "capitals": (
        {"Train/a": 3, "Test/a": 2},
        ("3 images, and 2 to test, in 1 class: a; trained on Train, tested on Test"),
    ),
    "train and val": (
        {"train/a": 3, "val/a": 2},
        ("3 images, and 2 to test, in 1 class: a; trained on train, tested on val"),
    ),
    "three parts": (
        {"train/a": 3, "valid/a": 2, "test/a": 1},
        ("3 images, and 1 to test, in 1 class: a; trained on train, tested on test; not used: valid"),
    ),
    "flat parts": (
        {"train": 5, "test": 2},
        ("5 images, and 2 to test, in 1 class: images; trained on train, tested on test"),
    ),
    "unlabelled test set beside val": (
        {"train/a": 3, "val/a": 2, "test": 4},
        ("3 images, and 2 to test, in 1 class: a; trained on train, tested on val; not used: test"),
    ),
    "Kaggle's nesting": (
        {"training_set/training_set/cat": 3, "test_set/test_set/cat": 2},
        ("3 images, and 2 to test, in 1 class: cat; trained on training_set, tested on test_set"),
    ),
    "one folder of folders": (
        {"pets/pets/cat": 7, "pets/pets/dog": 7},
        (f"12 images, and 2 to test, in 2 classes: cat, dog; everything lies in pets/pets, which is read; {SEVENTH}"),
    ),
    "only train": (
        {"train/a": 7, "train/b": 7},
        (f"12 images, and 2 to test, in 2 classes: a, b; everything lies in train, which is read; {SEVENTH}"),
    ),
    "flat": ({".": 7}, f"6 images, and 1 to test, in 1 class: images; {SEVENTH}"),
    "numbers": (
        {"10": 2, "2": 2, "1": 2},
        f"3 images, and 3 to test, in 3 classes: 1, 2, 10; {SEVENTH}",
    ),
    "annotations": (
        {"images": 7, "annotations/trimaps": 7},
        (
            "12 images, and 2 to test, in 2 classes: annotations, images; "
            f"{SEVENTH}; merged into the class above them: annotations/trimaps"
        ),
    ),
    "a copy one level down": (
        {"cat": 7, "dog": 7, "pets/cat": 7, "pets/dog": 7},
        (
            "24 images, and 4 to test, in 3 classes: cat, dog, pets; "
            f"{SEVENTH}; merged into the class above them: pets/cat, pets/dog"
        ),
    ),
    "loose images": (
        {"cat": 7, "dog": 7, ".": 2},
        (f"12 images, and 2 to test, in 2 classes: cat, dog; {SEVENTH}; left out: 2 images beside the classes"),
    ),
    "system's folders": (
        {"cat": 7, "lost+found": 3, "@eaDir/cat": 3, "$RECYCLE.BIN": 2},
        f"6 images, and 1 to test, in 1 class: cat; {SEVENTH}",
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_folder_is_read_as_people_mean_it_and_said(tmp_path, layout):
    assert load(write_layout(tmp_path / "images", layout)).description == f"images: {LAYOUTS[layout][1]}"


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_run_on_every_layout_is_complete_and_says_what_it_read(tmp_path, layout):
    folder = write_layout(tmp_path / "images", layout)
    done = call_main("--dataset", folder, "--results_dir", tmp_path / "results", *SMALL, "--epochs", 1)
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[0] == f"Training on images: {LAYOUTS[layout][1]}"
    assert (tmp_path / "results" / "explorer.html").exists()


def write_layout(folder, layout):
    """Write images of noise into the folders of a layout."""
    for seed, (place, n) in enumerate(LAYOUTS[layout][0].items()):
        for i in range(n):
            write_noise(folder / place / f"{i:03d}.png", 100 * seed + i)
    return folder


def write_noise(path, seed):
    """Write an image of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (30, 30)).astype(np.uint8)).save(path)


def test_first_line_of_a_run_on_a_folder(tmp_path, no_drawing):
    write_classes(tmp_path / "pets", {"cat": 7, "dog": 7})
    (tmp_path / "pets" / "cat" / "notes.txt").touch()
    done = call_main("--dataset", tmp_path / "pets", "--results_dir", tmp_path / "results", *SMALL, "--epochs", 1)
    text = (
        "pets: 12 images, and 2 to test, in 2 classes: cat, dog; a seventh of each class is for testing; "
        "14 images of one grey value only; left out: 1 .txt files"
    )
    assert done.out.splitlines()[0] == f"Training on {text}"
    assert json.loads((tmp_path / "results" / "config.json").read_text())["data"] == text


def test_what_is_left_out_is_counted(tmp_path):
    write_classes(tmp_path / "pets", {"cat": 3, "dog": 3})
    for name in ("a.heic", "b.heic", "list.csv", "README"):
        (tmp_path / "pets" / "cat" / name).touch()
    (tmp_path / "pets" / "dog" / "more").symlink_to(tmp_path / "pets" / "cat")
    left_out = load(tmp_path / "pets").notes[-1]
    counts = {"2 .heic files", "1 links to folders", "1 .csv files", "1 files without a suffix"}
    assert set(left_out.removeprefix("left out: ").split(", ")) == counts


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads everything")
def test_folder_that_cannot_be_read_is_counted(tmp_path):
    write_classes(tmp_path / "pets", {"cat": 3, "dog": 3})
    (tmp_path / "pets" / "dog").chmod(0)
    assert "left out: 1 unreadable folders" in load(tmp_path / "pets").notes
    (tmp_path / "pets" / "cat").chmod(0)
    with pytest.raises(UserError, match="a folder that cannot be read: make it readable"):
        load(tmp_path / "pets")


def test_links_to_classes_are_followed(tmp_path):
    write_classes(tmp_path / "real", {"cat": 3, "dog": 3})
    (tmp_path / "pets").mkdir()
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).symlink_to(tmp_path / "real" / name)
    assert torch.equal(load(tmp_path / "pets").checksums, load(tmp_path / "real").checksums)


def test_links_to_classes_are_followed_in_both_parts_of_a_split(tmp_path):
    write_classes(tmp_path / "real", {"cat": 3, "dog": 3})
    for part in ("train", "test"):
        (tmp_path / "pets" / part).mkdir(parents=True)
        for name in ("cat", "dog"):
            (tmp_path / "pets" / part / name).symlink_to(tmp_path / "real" / name)
    dataset = load(tmp_path / "pets")
    assert (len(dataset.train_images), len(dataset.test_images)) == (6, 6)


def test_float_images_of_one_negative_value_are_black(tmp_path):
    for name in ("a", "b"):
        for i in range(2):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.fromarray(np.full((28, 28), -5, np.float32)).save(tmp_path / name / f"{i}.tiff")
    assert load(tmp_path).train_images.max() == 0


def test_damaged_images_are_listed_together(tmp_path):
    write_classes(tmp_path, {"a": 20})
    for i in range(12):
        (tmp_path / "a" / f"{i:03d}.png").write_text("no image")
    with pytest.raises(UserError, match=r"^12 files cannot be read as images: ") as refusal:
        load(tmp_path)
    assert str(refusal.value).count("unknown format") == 10


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
@pytest.mark.parametrize("place", ["b", ""], ids=["class", "dataset"])
def test_folder_whose_name_is_not_utf_8_is_named_in_a_line(tmp_path, place):
    folder = write_classes(tmp_path / "pets", {"a": 2, "b": 2})
    (folder / place).rename((folder / place).with_name("caf\udce9"))
    if not place:
        folder = folder.with_name("caf\udce9")
    with pytest.raises(UserError, match=r"name is not UTF-8, 'caf\\udce9': rename it$"):
        load(folder)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_odd_exif_refuses_no_picture(tmp_path, suffix, recwarn, capfd):
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x9286] = "a comment"
    sound = exif.tobytes()
    rng = np.random.default_rng(0)
    for i in range(150):
        block = bytearray(sound)
        for _ in range(3):
            block[rng.integers(6, len(block))] = rng.integers(256)
        try:
            Image.new("L", (30, 20), 90).save(tmp_path / f"{i}{suffix}", exif=bytes(block))
        except Exception:  # Pillow does not write everything that others do
            (tmp_path / f"{i}{suffix}").unlink(missing_ok=True)
    read, _ = images.decode_all(sorted(map(str, tmp_path.iterdir())))
    assert len(read) > 20
    assert np.abs(read.astype(int) - 90).max() <= 2
    assert recwarn.list == []
    assert capfd.readouterr().err == ""


DEEP = {
    "12 bits": (lambda: np.linspace(0, 4095, 900).astype(np.uint16), "x.tif", "4095"),
    "floats in [0, 1]": (lambda: np.linspace(0, 1, 900).astype(np.float32), "x.tif", "1"),
    "floats to 65535": (lambda: np.linspace(0, 65535, 900).astype(np.float32), "x.tif", "65535"),
    "16 bits": (lambda: np.linspace(0, 65535, 900).astype(np.uint16), "x.png", "65535"),
    "below zero": (lambda: np.linspace(-1024, 3071, 900).astype(np.int32), "x.tif", "3"),
}


@pytest.mark.parametrize("kind", DEEP)
def test_images_of_more_than_8_bits_keep_their_tones_and_it_is_said(tmp_path, kind):
    values, name, white = DEEP[kind]
    path = tmp_path / "a" / name
    path.parent.mkdir()
    Image.fromarray(values().reshape(30, 30)).save(path)
    write_image(tmp_path / "a" / "y.png")
    dataset = load(tmp_path)
    (note,) = [note for note in dataset.notes if "more than 8 bits" in note]
    assert f"and {white}" in note
    read = torch.cat([dataset.train_images, dataset.test_images])
    deep = read[(read != read[:, :1]).any(1)][0]
    assert deep.min() < 15
    assert deep.max() > 240
    assert (deep.float().mean() - 127).abs() < 10


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_float_image_that_is_not_finite_is_named(tmp_path, value):
    (tmp_path / "a").mkdir()
    Image.fromarray(np.full((30, 30), value, np.float32)).save(tmp_path / "a" / "x.tif")
    write_image(tmp_path / "a" / "y.png")
    with pytest.raises(UserError, match=r"x\.tif \(a value that is not finite\)"):
        load(tmp_path)


def test_every_class_of_two_or_more_has_a_test_image_at_every_size():
    for n in range(2, 400):
        labels = np.repeat([0, 1, 2], [n, 3, 1])
        train, test = images.split(labels)
        assert sorted([*train, *test]) == list(range(len(labels)))
        assert np.bincount(labels[test], minlength=3)[1:].tolist() == [1, 0]
        assert len(labels[test]) == max(1, round(n / 7)) + 1


def test_class_names_with_the_same_ends_stay_apart():
    names = [f"photographs of {animal} in the garden" for animal in ("cats", "dogs", "hens")]
    short = images.short_names([*names, "cat"])
    assert len(set(short)) == 4
    assert max(map(len, short)) <= 20
    assert short[3] == "cat"


def test_second_start_reads_no_image_unless_one_has_changed(tmp_path, monkeypatch, no_drawing):
    write_classes(tmp_path / "pets", {"cat": 7, "dog": 7})
    flags = ("--dataset", tmp_path / "pets", "--results_dir", tmp_path / "results", *SMALL, "--epochs")
    first = call_main(*flags, 1)
    with monkeypatch.context() as patch:
        patch.setattr(images, "decode_all", None)
        second = call_main(*flags, 2)
    assert second.code == 0, second.err
    assert second.out.splitlines()[0] == first.out.splitlines()[0]
    write_image(tmp_path / "pets" / "cat" / "003.png", 200)
    assert "of its 14 images 1 are gone or have changed, and 1 are new" in call_main(*flags, 3).err
    (tmp_path / "results" / ".images.npz").write_bytes(b"damaged")
    write_image(tmp_path / "pets" / "cat" / "003.png", 3)
    assert call_main(*flags, 3).code == 0


def test_images_of_another_folder_are_read_though_their_names_sizes_and_times_agree(tmp_path):
    """As after unpacking two archives whose times are rounded."""
    for name, value in (("a", 20), ("b", 200)):
        for image in "12":
            path = write_image(tmp_path / name / "one" / f"{image}.bmp", value)
            os.utime(path, ns=(10**18, 10**18))
    means = [images.load_folder(tmp_path / name, tmp_path / "cache.npz")[0].mean() for name in "ab"]
    assert means == [20, 200]


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
