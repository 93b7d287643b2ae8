"""What a run prints, and the titles of its pictures."""

import dataclasses
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import SMALL, call_main, metrics

import explorer
import pictures
import train
import utils
import variants
from pictures import latents
from support.data import datasets
from support.latent.likelihood import Estimate
from support.run import files, report
from support.run.config import FLAGS, Config

ROW = {"epoch": 7, "test_bce": 141.806, "test_divergence": 6.3823, "test_total": 148.1883}
LOSSES = r"BCE_Loss: \d+\.\d{4}, KLD_Loss: \d+\.\d{4}, Total_Loss: \d+\.\d{4}"


def test_lines_of_run_are_worded_as_documented(finished_run):
    first, *lines = finished_run.done.out.splitlines()
    assert first == "Training on MNIST: 300 images, and 60 to test, in 10 classes"
    rows = metrics(finished_run.folder)
    assert len(lines) == 3 * 3 + 4  # the summary says that so short a run has learned no latents
    for row, (batch, epoch, test) in zip(rows, (lines[i : i + 3] for i in (0, 3, 6)), strict=True):
        assert re.fullmatch(rf"Train Epoch: {row['epoch']} \[0/300 \(0%\)\]\t{LOSSES}", batch)
        assert epoch == (
            f"====> Epoch: {row['epoch']} Average BCE loss: {row['train_bce']}, KLD loss: {row['train_kld']}, "
            f"Total loss: {row['train_total']}"
        )
        assert test == f"====> Test set {losses_of(row)}"
    assert finished_run.done.err == ""


def losses_of(row):
    return f"BCE_loss: {row['test_bce']}, KLD_loss: {row['test_kld']}, Total_loss: {row['test_total']}"


def test_last_lines_of_run_are_its_summary(finished_run):
    likelihood, best, where = finished_run.done.out.splitlines()[-3:]
    rows = metrics(finished_run.folder)
    pattern = (
        r"====> log p\(x\) at the best epoch: (-\d+\.\d{4}) nats per test image, by quadrature. "
        "Grey pixels: a lower bound on the mean log p of their binarisations"
    )
    log_p = float(re.fullmatch(pattern, likelihood)[1])
    assert -float(rows[2]["test_total"]) < log_p < 0  # the ELBO is the lower bound
    assert best == f"====> Best epoch: 3 of 3 on MNIST, test set {losses_of(rows[2])}"
    assert where.startswith(f"Results are in {finished_run.folder}: ")
    names = where.removeprefix(f"Results are in {finished_run.folder}: ").split(", ")
    written = [path.name + "/" * path.is_dir() for path in finished_run.folder.iterdir() if path.name != ".lock"]
    assert sorted(names) == sorted(written)


def test_log_p_with_more_latents_is_printed_with_its_effective_sample_size():
    binary = torch.tensor([[0, 255, 255]], dtype=torch.uint8)
    estimate = Estimate(torch.tensor([-97.0, -98.0]), 500, torch.tensor([40.0, 90.0]))
    assert report.log_p_text(estimate, binary) == (
        "-97.5000 nats per test image, by importance sampling, k = 500; effective sample size 40.0 (median), below 5 "
        "for 0% of the images"
    )


def test_estimate_that_rests_on_few_samples_says_that_log_p_is_probably_higher():
    binary = torch.tensor([[0, 255, 255]], dtype=torch.uint8)
    estimate = Estimate(torch.tensor([-97.0, -98.0]), 10, torch.tensor([1.5, 9.0]))
    assert report.log_p_text(estimate, binary).endswith("below 5 for 50% of the images, so log p(x) is probably higher")


@pytest.mark.parametrize(("few", "is_unsure"), [(10, False), (11, True)])
def test_estimate_is_called_unsure_beyond_a_tenth_of_the_images(few, is_unsure):
    ess = torch.where(torch.arange(100) < few, 4.9, 50.0)
    text = report.log_p_text(Estimate(torch.full((100,), -97.0), 10, ess), torch.zeros(1, 3, dtype=torch.uint8))
    assert text.endswith("so log p(x) is probably higher") == is_unsure


def test_log_p_of_grey_pixels_is_printed_as_the_bound_that_it_is():
    images = torch.tensor([[0, 255, 255]], dtype=torch.uint8)
    estimate = Estimate(torch.tensor([-97.0]))
    assert report.log_p_text(estimate, images) == "-97.0000 nats per test image, by quadrature"
    images[0, 1] = 128
    assert report.log_p_text(estimate, images).endswith(
        "by quadrature. Grey pixels: a lower bound on the mean log p of their binarisations"
    )


def test_status_lines_come_at_log_interval(small_mnist, tmp_path, no_drawing):
    flags = ("--data_dir", small_mnist, "--results_dir", tmp_path / "results", *SMALL, "--epochs", 1)
    done = call_main(*flags, "--log_interval", 2)
    places = re.findall(r"^Train Epoch: 1 \[(.*)\]\t", done.out, re.MULTILINE)
    assert places == ["0/300 (0%)", "128/300 (43%)", "256/300 (85%)"]


def test_status_line_is_mean_of_its_batch(capsys):
    """The last batch is smaller: 44 of 300 images."""
    dataset = SimpleNamespace(train_images=torch.zeros(300, 784))
    config = Config(log_interval=1, divergence="mmd", divergence_weight=10.0)
    run = SimpleNamespace(config=config, dataset=dataset, history=[])
    losses = torch.tensor([[0.0, 0.0], [0.0, 0.0], [44 * 3.0, 44 * 0.5]])
    with report.progress(run) as on_batch:
        on_batch(4, 2, losses)
    expected = "Train Epoch: 4 [256/300 (85%)]\tBCE_Loss: 3.0000, MMD_Loss: 0.5000, Total_Loss: 8.0000\n"
    assert capsys.readouterr().out == expected


@pytest.mark.parametrize(
    ("flags", "title"),
    [
        ({}, "MNIST, epoch 7: BCE 141.81 + KLD 6.38 = 148.19 nats per test image"),
        (
            {"divergence_weight": 2.0},
            "MNIST, epoch 7: BCE 141.81 + 2 x KLD 6.38 = 154.57 nats per test image",
        ),
        (
            {"divergence": "mmd", "divergence_weight": 10.0},
            "MNIST, epoch 7: BCE 141.81 + 10 x MMD 6.3823 = 205.63 per test image",
        ),
    ],
    ids=["KLD", "weighted KLD", "MMD"],
)
def test_headline_tells_losses(flags, title):
    run = SimpleNamespace(config=Config(**flags), dataset=SimpleNamespace(title="MNIST"))
    total = ROW["test_bce"] + run.config.divergence_weight * ROW["test_divergence"]
    assert pictures.headline(run, {**ROW, "test_total": total}) == title


class Drawn(dict):
    """The arguments with which each picture was drawn, by the name of its function, in place of the picture."""

    def replace(self, monkeypatch):
        for name in ("image_grid", "reconstruction", "loss_curves", "latent_frame"):
            monkeypatch.setattr(utils, name, self.recorder(name))

    def recorder(self, name):
        def draw(*arguments):
            self.setdefault(name, []).append(arguments)
            return b"a picture"

        return draw


def drawn_by(small_mnist, monkeypatch, **flags):
    """A run of one epoch on the small MNIST, after its pictures, and what was drawn."""
    drawn = Drawn()
    drawn.replace(monkeypatch)
    config = dataclasses.replace(Config(), hidden_dims=(16,), epochs=1, **flags)
    run = train.begin(config, datasets.load("mnist", small_mnist))
    monkeypatch.setattr(pictures.storage, "write", lambda path, content: None)
    for epoch in train.epochs(run):
        pictures.write_epoch(run, epoch)
    return run, epoch, drawn


def test_pictures_show_the_evaluation_of_their_epoch(small_mnist, tmp_path, monkeypatch):
    run, epoch, drawn = drawn_by(small_mnist, monkeypatch, results_dir=tmp_path)
    title = pictures.headline(run, epoch.row)
    (frame,) = drawn["latent_frame"]
    assert (frame[0] == np.stack([epoch.test.z, epoch.test.mu])).all()
    assert (frame[1] == run.dataset.test_labels.numpy()).all()
    assert frame[2:] == (tuple("0123456789"), title, ("z 1", "z 2"), 4)
    ((images, reconstructions, reconstruction_title),) = drawn["reconstruction"]
    assert (images == datasets.pixels(run.dataset.test_images[:10]).numpy()).all()  # the first of each class
    expected = run.model.decode(epoch.test.z[:10]).sigmoid().detach().numpy()
    assert reconstructions == pytest.approx(expected, abs=1e-6)
    assert reconstruction_title == title


def test_loss_curves_show_every_loss_and_mark_the_best_epoch(small_mnist, tmp_path, monkeypatch):
    run, epoch, drawn = drawn_by(small_mnist, monkeypatch, results_dir=tmp_path)
    ((losses, epochs, names, title),) = drawn["loss_curves"]
    row = epoch.row
    expected = [[row[f"{part}_{term}"] for part in ("train", "test")] for term in ("bce", "divergence", "total")]
    assert losses.tolist() == [expected]
    assert epochs == 1
    assert names == ("BCE", "KLD", "total = BCE + KLD = -ELBO")
    assert title == pictures.headline(run, row, "best epoch")


def test_curves_of_mmd_are_not_called_a_bound(small_mnist, tmp_path, monkeypatch):
    flags = {"divergence": "mmd", "divergence_weight": 10.0, "results_dir": tmp_path}
    _, _, drawn = drawn_by(small_mnist, monkeypatch, **flags)
    assert drawn["loss_curves"][0][2] == ("BCE", "MMD", "total = BCE + 10 x MMD")


def test_latents_of_learned_prior_are_standardised(small_mnist, tmp_path, monkeypatch):
    flags = {"prior": "mixture", "prior_components": 1, "results_dir": tmp_path}
    run, epoch, drawn = drawn_by(small_mnist, monkeypatch, **flags)
    (frame,) = drawn["latent_frame"]
    mu, logvar = (parameter.detach() for parameter in run.model.prior.components())
    expected = ((epoch.test.z - mu) / torch.exp(0.5 * logvar)).numpy()
    assert frame[0][0] == pytest.approx(expected, abs=1e-4)
    assert frame[4] == ("standardised z 1", "standardised z 2")


def test_latents_of_three_dimensions_are_shown_by_two_principal_components(small_mnist, tmp_path, monkeypatch):
    _, epoch, drawn = drawn_by(small_mnist, monkeypatch, latent_dim=3, results_dir=tmp_path)
    (frame,) = drawn["latent_frame"]
    mean, components = latents.principal_plane(epoch.test.mu)
    assert frame[0][0] == pytest.approx(((epoch.test.z - mean) @ components.T).numpy(), abs=1e-5)
    assert frame[0][1] == pytest.approx(((epoch.test.mu - mean) @ components.T).numpy(), abs=1e-5)
    assert frame[4] == ("principal plane, axis 1", "principal plane, axis 2")


def test_last_pictures_name_best_epoch_and_prior(small_mnist, tmp_path, monkeypatch):
    drawn = Drawn()
    drawn.replace(monkeypatch)
    monkeypatch.setattr(utils, "gif", lambda paths: b"a picture")
    flags = ("--data_dir", small_mnist, "--results_dir", tmp_path / "results", *SMALL, "--epochs", 2)
    assert call_main(*flags, "--latent_dim", 3, "--prior", "vamp").code == 0
    titles = [arguments[2] for arguments in drawn["image_grid"]]
    assert titles == [
        "MNIST, best epoch 2: the decoder over the plane of two principal components through 0",
        "MNIST, best epoch 2: decoded draws of z ~ the VampPrior",
    ]


def test_only_two_dimensions_have_an_explorer():
    have = [dim for dim in (1, 2, 3) if "explorer.html" in files.names(Config(latent_dim=dim))]
    assert have == [2]


@pytest.mark.parametrize(
    ("used", "words"),
    [(0, ("collapsed", "--divergence_weight below 4")), (1, ("1 of 3 latents are active", "--latent_dim 1")), (3, ())],
)
def test_latents_that_are_not_used_are_named_with_what_to_try(small_mnist, capsys, monkeypatch, used, words):
    config = Config(latent_dim=3, hidden_dims=(16,), divergence_weight=4.0)
    run = train.begin(config, datasets.load("mnist", small_mnist))
    with torch.no_grad():
        run.model.encoder[-1].weight[:used] *= 100
        run.model.encoder[-1].weight[used:] = 0
    run.history = [ROW]
    monkeypatch.setattr(report.checkpoint, "load_model", lambda path: run.model)
    report.show_end(run)
    printed = capsys.readouterr().out
    assert ("active" in printed or "collapsed" in printed) == bool(words)
    assert all(word in printed for word in words)


def test_encoder_without_a_posterior_is_not_told_that_its_posterior_has_collapsed():
    text = report.inactive_latents(0, Config(divergence="mmd"))
    assert text.startswith("All images have one code")
    assert "posterior" not in text


def test_last_line_names_only_files_that_were_written(run_main, tmp_path, monkeypatch, no_drawing):
    monkeypatch.setattr(explorer, "write", lambda *arguments: None)
    done = run_main(tmp_path, *SMALL, "--epochs", 1)
    assert "loss.png" in done.out.splitlines()[-1]
    assert "explorer.html" not in done.out


def test_negative_mmd_is_explained_where_it_is_printed():
    assert "can be below zero" in report.losses_text({**ROW, "test_divergence": -0.001}, "MMD")
    assert "below zero" not in report.losses_text(ROW, "MMD")


def test_negative_kld_is_explained_where_it_is_printed():
    assert "under a learned prior" in report.losses_text({**ROW, "test_divergence": -0.001}, "KLD")
    assert "below zero" not in report.losses_text(ROW, "KLD")


def test_long_title_has_two_lines():
    run = SimpleNamespace(config=Config(), dataset=SimpleNamespace(title="photographs …the sea"))
    first, second = pictures.headline(run, ROW).split("\n")
    assert first == "photographs …the sea, epoch 7:"
    assert second == "BCE 141.81 + KLD 6.38 = 148.19 nats per test image"


def test_title_is_an_equation_also_after_the_weight_of_the_divergence_has_changed():
    run = SimpleNamespace(config=Config(divergence_weight=4), dataset=SimpleNamespace(title="MNIST"))
    assert "BCE 141.81 + KLD 6.38 = 148.19" in pictures.headline(run, ROW)


def test_every_prior_and_divergence_has_a_name_in_pictures():
    choices = {field.name: field.metadata["check"] for field in FLAGS}
    assert set(pictures.PRIORS) == set(choices["prior"].names)
    assert set(variants.DIVERGENCES) == set(choices["divergence"].names)
