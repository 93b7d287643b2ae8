"""The measures of the studies: k nearest neighbours, the sliced Wasserstein distance, and the MMD in pieces."""

import statistics

import pytest
import torch

from studies import measures
from support.seeds import generator
from variants.wae import mmd


def test_knn_accuracy_is_one_for_separate_clusters_and_low_for_noise():
    labels = torch.arange(500) % 5
    centres = 10 * labels.unsqueeze(1) + torch.randn(500, 2, generator=generator(0))
    assert measures.knn_accuracy(centres[:400], labels[:400], centres[400:], labels[400:]) == 1
    noise = torch.randn(500, 2, generator=generator(0))
    assert measures.knn_accuracy(noise[:400], labels[:400], noise[400:], labels[400:]) < 0.4


def test_sliced_wasserstein_of_gaussians_agrees_with_closed_form():
    z, other = torch.randn(2, 3000, 3, generator=generator(0))
    shift = torch.tensor([1.0, 2.0, 2.0])  # of length 3
    shifted = measures.sliced_wasserstein(z, other + shift, generator(1), n_slices=500)
    assert shifted == pytest.approx(3 / 3**0.5, rel=0.05)
    widened = measures.sliced_wasserstein(z, 2 * other, generator(1))
    assert widened == pytest.approx(1, rel=0.05)
    assert measures.sliced_wasserstein(z, other, generator(1)) < 0.06


def test_chunked_mmd_is_mean_over_pieces(monkeypatch):
    monkeypatch.setattr(measures, "MMD_DRAWS", 100)
    z, other = torch.randn(2, 200, 2, generator=generator(0))
    pieces = [mmd(z[:100], other[:100] + 1).item(), mmd(z[100:], other[100:] + 1).item()]
    assert measures.chunked_mmd(z, other + 1) == pytest.approx(statistics.fmean(pieces))
