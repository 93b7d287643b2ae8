"""The page as a file; test_explorer.py opens it in a browser."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from helpers import SMALL, contents

import explorer
import utils
from explorer.__main__ import main as write_page
from support.latent import likelihood
from support.run import checkpoint


def content_of(folder):
    """What a run has written into its page, as a dict."""
    html = (folder / "explorer.html").read_text(encoding="utf-8")
    return json.loads(re.search(r'id="content">(.*?)</script>', html)[1])


def test_command_writes_the_same_page_again(copied_run, capsys):
    before = contents(copied_run.folder)
    page = copied_run.folder / "explorer.html"
    page.unlink()
    assert write_page([str(copied_run.folder)]) == 0
    assert capsys.readouterr().out == f"Open {page} in a browser\n"
    assert contents(copied_run.folder) == before


def test_flags_of_the_page_are_read_as_those_of_main(copied_run, capsys, monkeypatch):
    monkeypatch.setenv("RESULTS", str(copied_run.folder))
    assert write_page(["$RESULTS"]) == 0
    assert write_page(["$RESULTS", "--dataset", "nowhere"]) == 2
    assert "'nowhere' is neither one of mnist" in capsys.readouterr().err


def test_page_holds_the_classes_and_one_film_frame_per_epoch(finished_run):
    content = content_of(finished_run.folder)
    history = checkpoint.load(finished_run.folder / "checkpoint.pt").history
    assert content["classes"] == list("0123456789")
    assert content["film"]["epochs"] == [row["epoch"] for row in history]
    assert [losses[2][1] for losses in content["losses"]] == [row["test_total"] for row in history]
    assert 0 <= content["first"] < len(content["labels"])
    assert content["best"] == checkpoint.best_of(history)["epoch"]
    assert len(content["labels"]) == 60


@pytest.mark.exact_log_p
def test_first_image_has_an_ordinary_gap_and_a_posterior_far_from_its_mean(monkeypatch):
    offsets = torch.tensor([0.1, 1.0, 5.0, 0.5])  # of the posterior from mu
    gaps = torch.tensor([2.0, 2.0, 9.0, 3.0])
    lattice = likelihood.Lattice(torch.stack([offsets, torch.zeros(4)], 1), None, None)
    monkeypatch.setattr(likelihood, "lattice", lambda model: lattice)
    monkeypatch.setattr(likelihood, "log_joint", lambda model, lattice, images: torch.eye(4).log() + gaps - 100)

    class Model:
        def __call__(self, x, eps):
            return torch.full((4,), 90.0), torch.full((4,), 10.0), eps, eps

        def encode(self, x):
            return torch.zeros(4, 2), torch.zeros(4, 2)

    assert explorer.first(Model(), torch.zeros(4, 784, dtype=torch.uint8)) == 1


def test_page_asks_nothing_of_a_network(finished_run):
    html = (finished_run.folder / "explorer.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in html
    assert not re.search(r"https?://|@import|<link (?!rel=\"icon\" href=\"data:,\")", html)


def test_network_view_quotes_model_py():
    quoted = re.findall(
        r"^  \w+: ['\"](return .*)['\"],$", (explorer.PAGE / "layers.js").read_text("utf-8"), re.MULTILINE
    )
    lines = (explorer.PAGE.parents[1] / "model.py").read_text("utf-8").splitlines()
    assert len(quoted) == 5
    assert set(quoted) <= {line.strip() for line in lines}


def class_colors():
    """The page's colours of the classes, in the light and in the dark scheme."""
    style = (explorer.PAGE / "page.css").read_text(encoding="utf-8")
    schemes = [re.findall(r"--c(\d+): (#\w{6});", part) for part in style.split("@media", 1)]
    assert [[int(label) for label, _ in scheme] for scheme in schemes] == [list(range(20))] * 2
    return [[color for _, color in scheme] for scheme in schemes]


def test_page_has_the_colours_of_the_pictures():
    light, dark = class_colors()
    assert light == list(utils.CLASS_COLORS)
    assert len(set(dark)) == 20


def oklab(rgb):
    """Linear RGB (N, 3) in OKLab, a space in which equal distances look equally large (Ottosson, 2020)."""
    cones = [[0.41222, 0.53633, 0.05145], [0.21190, 0.68070, 0.10740], [0.08830, 0.28172, 0.62998]]
    opponents = [[0.21045, 0.79362, -0.00407], [1.97800, -2.42859, 0.45059], [0.02590, 0.78277, -0.80868]]
    return np.cbrt(rgb.clip(0, 1) @ np.transpose(cones)) @ np.transpose(opponents)


@pytest.mark.parametrize(
    "sight",
    [
        [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    ],
    ids=["normal", "protanopia", "deuteranopia", "tritanopia"],
)
@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_ten_classes_differ_for_every_colour_vision(scheme, sight):
    """Simulated as by Machado, Oliveira & Fernandes (2009). A difference of 0.02 can just be seen."""
    values = np.array([[int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)] for color in class_colors()[scheme][:10]])
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    seen = oklab(linear @ np.transpose(sight))
    distances = np.linalg.norm(seen[:, None] - seen, axis=2)[np.triu_indices(10, 1)]
    assert distances.min() > 0.05


def test_class_name_cannot_end_the_script_element():
    html = explorer.page({"classes": ["</script><script>alert(1)</script>"]})
    assert "alert(1)</script>" not in html


def test_deleted_film_frame_is_left_out(copied_run):
    (copied_run.folder / "latent" / "epoch_001.npy").unlink()
    assert write_page([str(copied_run.folder)]) == 0
    assert content_of(copied_run.folder)["film"]["epochs"] == [2, 3]


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b"x"),
        lambda path: path.write_bytes(path.read_bytes().replace(b"}", b" ", 1)),  # of its header
        lambda path: np.save(path, np.zeros((2, 2))),
    ],
    ids=["content", "header", "shape"],
)
def test_damaged_film_frame_is_left_out_and_named(copied_run, run_main, damage):
    path = copied_run.folder / "latent" / "epoch_002.npy"
    damage(path)
    (copied_run.folder / "explorer.html").unlink()
    done = run_main(copied_run.folder, *copied_run.flags)
    assert (done.code, done.err) == (
        0,
        f"WARNING: {path} is damaged or of other images; the film leaves its epoch out\n",
    )
    assert content_of(copied_run.folder)["film"]["epochs"] == [1, 3]


def save_double_weights(path):
    """Rewrite a best.pt with its weights in float64."""
    saved = torch.load(path)
    torch.save({**saved, "model": {name: value.double() for name, value in saved["model"].items()}}, path)


def save_other_epoch(path):
    """Rewrite a best.pt as that of another epoch."""
    saved = torch.load(path)
    torch.save({**saved, "row": {**saved["row"], "test_total": 1.0}}, path)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: shutil.rmtree(folder), "there is no run"),
        (lambda folder: (folder / "checkpoint.pt").unlink(), "checkpoint.pt is missing"),
        (lambda folder: (folder / "checkpoint.pt").write_bytes(b"x"), "checkpoint.pt is damaged"),
        (lambda folder: (folder / "best.pt").unlink(), "best.pt: No such file"),
        (lambda folder: (folder / "best.pt").write_bytes(b"x"), "best.pt is damaged"),
        (lambda folder: save_double_weights(folder / "best.pt"), "best.pt is damaged"),
        (lambda folder: save_other_epoch(folder / "best.pt"), "is not of epoch"),
    ],
    ids=[
        *("no directory", "no checkpoint", "damaged checkpoint", "no best.pt", "damaged best.pt", "float64 weights"),
        "best.pt of another epoch",
    ],
)
def test_incomplete_run_is_refused_with_a_line_and_left_alone(copied_run, capsys, damage, words):
    damage(copied_run.folder)
    before = contents(copied_run.folder)
    assert write_page([str(copied_run.folder)]) == 1
    errors = capsys.readouterr().err
    assert errors.startswith("explorer: error: ")
    assert errors.count("\n") == 1
    assert words in errors
    assert contents(copied_run.folder) == before


def test_run_whose_data_are_gone_is_refused_with_a_line(copied_run, tmp_path, capsys):
    assert write_page([str(copied_run.folder), "--data_dir", str(tmp_path)]) == 1
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    assert "train-images-idx3-ubyte is not in" in errors


def test_run_of_three_latent_dimensions_has_no_page(run_main, tmp_path, capsys):
    assert run_main(tmp_path, *SMALL, "--epochs", 1, "--latent_dim", 3).code == 0
    assert write_page([str(tmp_path)]) == 1
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    assert "the page needs a run of --latent_dim 2" in errors
    assert not (tmp_path / "explorer.html").exists()


def test_page_shows_up_to_200_of_each_class():
    labels = np.array([0] * 500 + [1] * 7 + [2] * 20)
    rows = explorer.shown(labels)
    assert np.bincount(labels[rows]).tolist() == [200, 7, 20]
    assert len(set(rows)) == 227


@pytest.mark.parametrize("n", [1, 99, 100, 101, 1000])
def test_film_keeps_first_best_and_last_of_at_most_hundred_epochs(n):
    history = [{"epoch": epoch, "test_total": abs(epoch - 57)} for epoch in range(1, n + 1)]
    epochs = explorer.film_epochs([row["epoch"] for row in history], history)
    assert len(epochs) == n if n <= 100 else len(epochs) in (99, 100)
    assert len(epochs) <= 100
    assert epochs == sorted(set(epochs))
    assert {1, min(57, n), n} <= set(epochs)
