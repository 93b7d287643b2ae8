import json
import os
import re
import shutil

import imageio.v3 as imageio
import pytest
import torch
from conftest import ROOT, cli, contents, metrics, write_mnist

import main
from model import VAE

REAL = os.path.join(os.environ.get("VAE_DATA_DIR", ""), "MNIST", "raw", "train-images-idx3-ubyte")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of three epochs on digits: its folder and what it printed."""
    folder = tmp_path_factory.mktemp("run") / "results"
    finished = cli("--dataset", "digits", "--epochs", 3, "--log-interval", 5, "--results_dir", folder)
    assert finished.returncode == 0, finished.stderr
    return folder, finished


def test_a_run_writes_the_files_of_the_contract(run):
    files = {str(path) for path in contents(run[0])}
    frames = {f"{kind}/epoch_{epoch:03d}.png" for kind in ("reconstruction", "latent") for epoch in (1, 2, 3)}
    pictures = {"loss.png", "latent.gif", "manifold.png", "samples.png"}
    others = {"config.json", "metrics.csv", "best.pt", "checkpoint.pt", "explorer.html"}
    others |= {f"latent/epoch_{epoch:03d}.npy" for epoch in (1, 2, 3)}
    assert files - {".lock"} == others | pictures | frames
    for name in frames | pictures:
        assert imageio.imread(run[0] / name).std() > 5, f"{name} is blank"


def test_metrics_are_sums_that_fall(run):
    rows = metrics(run[0])
    columns = "epoch,train_bce,train_kld,train_total,test_bce,test_kld,test_total,seconds"
    assert ",".join(rows[0]) == f"{columns},train_divergence,test_divergence"
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    for row in rows:
        for part in ("train", "test"):
            total = float(row[f"{part}_bce"]) + float(row[f"{part}_kld"])
            assert float(row[f"{part}_total"]) == pytest.approx(total, abs=2e-4)
            assert row[f"{part}_divergence"] == row[f"{part}_kld"]
    assert float(rows[2]["test_total"]) < float(rows[0]["test_total"])


def test_lines_are_worded_as_the_references(run):
    lines = run[1].stdout.splitlines()
    assert lines[0].startswith("Train Epoch: 1 [0/1500 (0%)]\tBCE_Loss: ")
    assert lines[1].startswith("Train Epoch: 1 [640/1500 (43%)]\tBCE_Loss: ")
    row = metrics(run[0])[0]
    assert f"====> Epoch: 1 Average BCE loss: {row['train_bce']}" in run[1].stdout
    test = f"BCE_loss: {row['test_bce']}, KLD_loss: {row['test_kld']}, Total_loss: {row['test_total']}"
    assert f"====> Test set {test}" in lines
    assert lines[-3].startswith("====> log p(x) at the best epoch: -")
    assert "Best epoch: 3" in lines[-2] and str(run[0]) in lines[-1]
    assert run[1].stderr == ""


def test_config_says_what_was_run(run):
    config = json.loads((run[0] / "config.json").read_text())
    expected = {"epochs": 3, "log_interval": 5, "seed": 1, "dataset": "digits", "device": "auto", "hidden_dims": [400]}
    expected |= {"train_images": 1500, "test_images": 297, "parameters": 631188}
    assert {name: config[name] for name in expected} == expected
    assert config["hardware"] == "cpu" or torch.cuda.is_available()
    assert config["precision"] in ("float32", "bfloat16") and config["torch"] == torch.__version__
    assert config.keys() >= main.DEFAULTS.keys()


def test_best_pt_is_the_best_epochs_model(run):
    model = VAE.load(run[0] / "best.pt")
    saved = torch.load(run[0] / "best.pt", weights_only=True)
    best = min(metrics(run[0]), key=lambda row: float(row["test_total"]))
    assert saved["epoch"] == int(best["epoch"]) and f"{saved['test_total']:.4f}" == best["test_total"]
    assert saved["config"]["dataset"] == "digits" and model.sample(2).shape == (2, 784)


def test_a_fresh_run_replaces_a_finished_one_and_leaves_strangers(run, small_mnist, tmp_path):
    folder = tmp_path / "results"
    shutil.copytree(run[0], folder)
    (folder / "notes.txt").write_text("mine")
    (folder / "latent" / "mine.png").write_text("mine")
    arguments = ("--data_dir", small_mnist, "--epochs", 1, "--latent_dim", 3, "--hidden_dims", 16, 8)
    again = cli(*arguments, "--results_dir", folder)
    assert again.returncode == 0 and "Replaced the run" in again.stdout
    assert (folder / "notes.txt").read_text() == (folder / "latent" / "mine.png").read_text() == "mine"
    assert sorted(path.name for path in (folder / "latent").iterdir()) == ["epoch_001.png", "mine.png"]
    assert len(metrics(folder)) == 1
    assert json.loads((folder / "config.json").read_text())["hidden_dims"] == [16, 8]


def test_digits_stand_in_for_an_mnist_that_nobody_asked_for(tmp_path):
    offline = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9", "VAE_DATA_DIR": ""}
    arguments = ("--data_dir", tmp_path / "none", "--results_dir", tmp_path / "results", "--epochs", 1)
    finished = cli(*arguments, **offline)
    assert finished.returncode == 0, finished.stderr
    assert "WARNING" in finished.stderr and "digits" in finished.stderr
    assert json.loads((tmp_path / "results" / "config.json").read_text())["dataset"] == "digits"
    refused = cli(*arguments, "--dataset", "mnist", **offline)
    assert refused.returncode == 1 and refused.stderr.count("\n") == 1
    assert "--data_dir" in refused.stderr and "--dataset digits" in refused.stderr


def test_help_names_every_flag_with_its_default():
    shown = cli("--help").stdout
    for name, default in main.DEFAULTS.items():
        assert re.search(rf"--{name}\b", shown), name
        if isinstance(default, (int, str)) and default and name != "data_dir":
            assert f"(default: {default})" in " ".join(shown.split()), name


BAD_FLAGS = [
    *(("--epochs", text) for text in ("0", "-3", "2.5", "ten", "")),
    *(("--batch_size", text) for text in ("0", "-1", "x")),
    *(("--log_interval", text) for text in ("0", "1e3")),
    *(("--latent_dim", text) for text in ("0", "two")),
    *(("--hidden_dims", "400", text) for text in ("0", "-5", "wide")),
    *(("--lr", text) for text in ("nan", "inf", "-inf", "0", "-1e-3", "fast", "1e39")),
    *(("--seed", text) for text in ("-1", "1.5", "9223372036854775808")),
    *(("--dataset", "cifar"), ("--device", "tpu"), ("--schedule", "cosine"), ("--precision", "float8")),
    *(("--no_such_flag",), ("stray",), ("--resume", "--overwrite")),
]


@pytest.mark.parametrize("flags", BAD_FLAGS, ids=" ".join)
def test_a_bad_flag_is_named_and_ends_with_exit_code_2(tmp_path, flags):
    refused = cli("--results_dir", tmp_path / "results", *flags)
    assert refused.returncode == 2
    assert flags[0] in refused.stderr.splitlines()[-1] and "Traceback" not in refused.stderr
    assert not (tmp_path / "results").exists()


def refused_with_one_line(*arguments):
    refused = cli(*arguments)
    assert refused.returncode == 1, refused.stderr
    assert refused.stderr.startswith("main.py: error: ") and refused.stderr.count("\n") == 1, refused.stderr
    return refused.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_device_that_is_not_there(tmp_path):
    assert "--device" in refused_with_one_line("--device", "cuda", "--results_dir", tmp_path)


@pytest.mark.parametrize("place", ["file", "below a file", "/proc/results"])
def test_a_results_dir_that_cannot_be_written(tmp_path, place):
    (tmp_path / "file").write_text("mine")
    folder = {"file": tmp_path / "file", "below a file": tmp_path / "file" / "results"}.get(place, place)
    assert str(folder) in refused_with_one_line("--dataset", "digits", "--results_dir", folder)
    assert (tmp_path / "file").read_text() == "mine"


def test_damaged_data_harm_nothing_that_is_there(run, tmp_path):
    labels = write_mnist(tmp_path / "data") / "MNIST" / "raw" / "train-labels-idx1-ubyte"
    labels.write_bytes(labels.read_bytes()[:-5])
    before = contents(run[0])
    message = refused_with_one_line("--data_dir", tmp_path / "data", "--results_dir", run[0])
    assert str(labels) in message
    assert contents(run[0]) == before


@pytest.mark.skipif(not os.path.exists(REAL), reason="VAE_DATA_DIR names no MNIST")
def test_first_epoch_on_mnist_is_the_reviews(tmp_path):
    finished = cli("--dataset", "mnist", "--epochs", 1, "--results_dir", tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert 168 < float(metrics(tmp_path)[0]["test_total"]) < 173  # the review has 170.3763


def test_readme_explains_every_flag():
    readme = (ROOT / "README.md").read_text()
    for name in main.DEFAULTS:
        assert f"| `--{name}` |" in readme, f"README.md does not explain --{name}"


def test_what_readme_links_to_is_there():
    readme = (ROOT / "README.md").read_text()
    links = re.findall(r"""(?:\]\(|src=")([^)"#:]+)[)"#]""", readme)
    assert len(links) > 20
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_readme_links_to_the_lines_it_speaks_of():
    readme = (ROOT / "README.md").read_text()
    links = re.findall(r"\[`(\w+)`\]\((\w+\.py)#L(\d+)\)", readme)
    assert len(links) >= 4
    for name, file, line in links:
        assert f"def {name}(" in (ROOT / file).read_text().splitlines()[int(line) - 1], (
            f"{name} is not at {file}:{line}"
        )
