"""The smoke test: a batch lowers its own loss, and a small run writes every file. It needs no data and no network."""

import json

import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from helpers import contents, metrics

from model import VAE
from support.seeds import generator

COLUMNS = "epoch,train_bce,train_kld,train_total,test_bce,test_kld,test_total,seconds,train_divergence,test_divergence"


def test_steps_on_one_batch_lower_its_loss():
    torch.manual_seed(0)
    model = VAE()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    x = torch.rand(32, 784, generator=generator(0)).round()
    losses = []
    for step in range(30):
        bce, kld, *_ = model(x, torch.randn(32, 2, generator=generator(step)))
        loss = (bce + kld).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(784 * 0.693, rel=0.05)  # each pixel costs log 2 before training
    assert losses[-1] < 0.95 * losses[0]


def test_run_writes_every_file(finished_run):
    folder = finished_run.folder
    epochs = (1, 2, 3)
    frames = {f"{kind}/epoch_{epoch:03d}.png" for kind in ("reconstruction", "latent") for epoch in epochs}
    pictures = frames | {"loss.png", "latent.gif", "manifold.png", "samples.png"}
    others = {"config.json", "metrics.csv", "best.pt", "checkpoint.pt", "explorer.html"}
    others |= {f"latent/epoch_{epoch:03d}.{suffix}" for epoch in epochs for suffix in ("npy", "npz")}
    assert contents(folder).keys() == pictures | others
    for name in contents(folder):
        if name.endswith(".npz"):
            assert np.load(folder / name)["points"].dtype == np.float16
    blank = [name for name in pictures if imageio.imread(folder / name).std() < 5]
    assert blank == []


def test_metrics_add_up_and_fall(finished_run):
    rows = metrics(finished_run.folder)
    assert ",".join(rows[0]) == COLUMNS
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    for row in rows:
        for part in ("train", "test"):
            total = float(row[f"{part}_bce"]) + float(row[f"{part}_kld"])
            assert float(row[f"{part}_total"]) == pytest.approx(total, abs=2e-4)
            assert row[f"{part}_divergence"] == row[f"{part}_kld"]
        assert float(row["seconds"]) >= 0
    totals = [float(row["test_total"]) for row in rows]
    assert totals == sorted(totals, reverse=True)


def test_config_json_tells_settings_and_sizes(finished_run):
    config = json.loads((finished_run.folder / "config.json").read_text())
    known = {"epochs": 3, "batch_size": 64, "seed": 1, "dataset": "mnist", "device": "auto", "hidden_dims": [16]}
    known |= {"train_images": 300, "test_images": 60, "processes": 1, "torch": torch.__version__}
    known["threads"] = torch.get_num_threads()
    known["parameters"] = (784 + 1) * 16 + (16 + 1) * 4 + (2 + 1) * 16 + (16 + 1) * 784
    assert {name: config[name] for name in known} == known
    assert config["precision"] in ("float32", "bfloat16")
    assert config["hardware"] == "cpu" or torch.cuda.is_available()
