"""The study of published figures: its schedules, its choice of an epoch, and how it continues."""

import dataclasses
import math

import pytest
import torch
from helpers import equal

from studies import published
from support.data import datasets
from support.errors import UserError
from support.run.config import Config


@pytest.fixture(autouse=True)
def save_every_epoch(monkeypatch):
    monkeypatch.setattr(published, "SAVE_EVERY", 1)


@pytest.fixture
def small(small_mnist):
    """A function from settings to a trial of three epochs on 250 images, and its Images."""

    def make(**settings):
        config = Config(hidden_dims=(8,), latent_dim=3, batch_size=100, lr=1e-2, epochs=3, input_dropout=0.1)
        trial = published.Trial(config, **{"held_out": 50} | settings)
        return trial, published.split(trial, datasets.load("mnist", small_mnist))

    return make


def test_burdas_rates_fall_after_three_to_the_i_epochs():
    factors = [round(-7 * math.log10(published.burda_factor(epoch))) for epoch in range(3280)]
    assert [factors.count(i) for i in range(8)] == [3**i for i in range(8)]
    assert factors == sorted(factors)


def test_pythaes_rate_falls_after_200_and_350_epochs(small):
    trial, images = small(protocol="pythae")
    factor = published.begin(trial, images.dataset).scheduler.lr_lambdas[0]
    steps = 3  # per epoch
    factors = [factor(step) for step in range(500 * steps)]
    assert factors == [1] * 200 * steps + [10**-0.2] * 150 * steps + [10**-0.4] * 150 * steps


def test_held_out_images_do_not_train(small):
    _, images = small()
    whole = small(held_out=0)[1].dataset.train_images
    assert whole.shape == (300, 784)
    assert torch.equal(images.dataset.train_images, whole[:250])
    assert torch.equal(images.held_out, whole[250:])
    assert len(images.grey) == 250


@pytest.mark.parametrize("settings", [{}, {"redraws": True}, {"held_out": 0, "marks": (1,)}])
def test_continued_trial_ends_like_an_uninterrupted_one(small, tmp_path, monkeypatch, settings):
    trial, images = small(**settings)
    whole = published.fit(trial, images, published.begin(trial, images.dataset), tmp_path / "whole.pt", False)

    train_epoch = published.train.train_epoch

    def stop_in_epoch_3(run, epoch):
        if epoch == 3:
            raise KeyboardInterrupt
        return train_epoch(run, epoch)

    monkeypatch.setattr(published.train, "train_epoch", stop_in_epoch_3)
    path = tmp_path / "trial.pt"
    with pytest.raises(KeyboardInterrupt):
        published.fit(trial, images, published.begin(trial, images.dataset), path, False)
    monkeypatch.setattr(published.train, "train_epoch", train_epoch)
    continued = published.fit(trial, images, published.begin(trial, images.dataset), path, False)
    assert equal(continued["models"], whole["models"])
    assert set(whole["models"]) == {whole["best"] or 3, *trial.marks}


def test_trial_that_diverges_ends_with_a_line(small, tmp_path):
    trial, images = small()
    run = published.begin(trial, images.dataset)
    with torch.no_grad():
        run.model.decoder[0].weight.fill_(math.nan)
    with pytest.raises(UserError, match="not finite in epoch 1"):
        published.fit(trial, images, run, tmp_path / "trial.pt", False)


def test_best_epoch_is_that_of_the_lowest_held_out_bound(small, monkeypatch, tmp_path):
    bounds = iter([5.0, 2.0, 4.0])
    monkeypatch.setattr(published, "total", lambda model, images: next(bounds))
    trial, images = small(marks=(1,))
    state = published.fit(trial, images, published.begin(trial, images.dataset), tmp_path / "trial.pt", False)
    assert (state["best"], set(state["models"])) == (2, {1, 2})


def test_file_of_a_trial_with_other_settings_is_refused(small, tmp_path):
    path = tmp_path / "trial.pt"
    trial, images = small()
    published.fit(trial, images, published.begin(trial, images.dataset), path, False)
    other = dataclasses.replace(trial, redraws=True)
    with pytest.raises(UserError, match=r"trial\.pt.*--overwrite"):
        published.fit(other, images, published.begin(other, images.dataset), path, False)
