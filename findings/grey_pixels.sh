#!/usr/bin/env bash
# What is the log probability of a grey pixel under a Bernoulli distribution?
#
# The guess: x log p + (1 - x) log(1 - p), as everywhere where a VAE is trained on MNIST; a library that does not want
# pixels between 0 and 1 says so.
# The behaviour, for x = 0.5 and the logit 1: TensorFlow Probability 0.25.0 and PyTorch's binary cross-entropy give that
# value, torch.distributions of torch 2.13.0 refuses it with a ValueError, and NumPyro 0.22.0 gives minus infinity: with a
# warning, but without one under jax.jit, in which its training runs. So an ELBO that trains in one library is an exception
# in the next, and an infinite loss in the third.
# Seen: "torch: ValueError; binary cross-entropy: -0.8133; TensorFlow Probability: -0.8133; NumPyro: -inf, with a warning;
# compiled: -inf, without a word", in one line.
#
# Exits with 1 if that has changed. Needs Python 3.11 or 3.12, and 8 GB in the temporary folder.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile torch==2.13.0 numpyro==0.22.0 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6 \
    tensorflow-probability==0.25.0 tensorflow-cpu==2.21.0 tf-keras==2.21.0

seen=$("$folder/venv/bin/python" - 2> "$folder/log" << 'PYTHON'
import warnings

import jax
import numpyro.distributions
import tensorflow_probability
import torch
import torch.nn.functional as F

x, logit = 0.5, 1.0
try:
    of_torch = f"{torch.distributions.Bernoulli(logits=torch.tensor(logit)).log_prob(torch.tensor(x)):.4f}"
except ValueError:
    of_torch = "ValueError"
entropy = -F.binary_cross_entropy_with_logits(torch.tensor(logit), torch.tensor(x))
of_tensorflow = float(tensorflow_probability.distributions.Bernoulli(logits=logit).log_prob(x))


def of_numpyro(x):
    return numpyro.distributions.Bernoulli(logits=logit).log_prob(x)


def with_words(function):
    """What a function makes of the pixel, and whether it warns."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        value = float(function(x))
    return f"{value:.4f}, {'with a warning' if found else 'without a word'}"


print(
    f"torch: {of_torch}; binary cross-entropy: {entropy:.4f}; TensorFlow Probability: {of_tensorflow:.4f}; "
    f"NumPyro: {with_words(of_numpyro)}; compiled: {with_words(jax.jit(of_numpyro))}"
)
PYTHON
)
echo "$seen"
expected="torch: ValueError; binary cross-entropy: -0.8133; TensorFlow Probability: -0.8133"
[ "$seen" = "$expected; NumPyro: -inf, with a warning; compiled: -inf, without a word" ] || exit 1
