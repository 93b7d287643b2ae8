#!/usr/bin/env bash
# What does a latent variable cost that neither the encoder nor the decoder uses?
#
# The guess: nothing. Where q(z|x) is the prior and p(x|z) has no z in it, log p(x, z) - log q(z|x) is log p(x) for
# every draw and any number of latent variables: so in normflows' NormalizingFlowVAE with its Gaussian encoder and
# decoder.
# The behaviour, with normflows 1.7.3 and torch 2.13.0: the decoder's log density has its -log(2 pi) / 2 once per latent
# variable, not once per pixel. So the "bound" lies above log p(x), by 719 nats for images of 784 pixels, and each
# further latent variable costs 0.92 nats: of two models, the one with fewer of them looks better. No gradient shows it,
# and with as many latent variables as pixels all is right.
# Seen, in nats above log p(x): "1 latent variable: 719.5; 2: 718.6; 10: 711.3; 50: 674.5; 784: 0.0".
#
# Exits with 1 if that has changed. Needs Python 3.11 or later, and 6 GB in the temporary folder.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile normflows==1.7.3 torch==2.13.0 numpy==2.4.6

seen=$("$folder/venv/bin/python" - << 'PYTHON'
import normflows
import torch
from normflows.distributions import DiagGaussian, NNDiagGaussian, NNDiagGaussianDecoder

torch.manual_seed(0)
x = torch.randn(8, 784)
log_p = torch.distributions.Normal(0.0, 1.0).log_prob(x).sum(-1, keepdim=True)


def standard(size):
    """A network that gives the means 0 and the log variances 0 of so many numbers, whatever its input."""
    return lambda inputs: torch.zeros(len(inputs), 2 * size)


def above(latents):
    """By how much log p(x, z) - log q(z|x) exceeds log p(x), on average over images and draws."""
    prior = DiagGaussian(latents, trainable=False)
    decoder = NNDiagGaussianDecoder(standard(784))
    vae = normflows.NormalizingFlowVAE(prior, NNDiagGaussian(standard(latents)), flows=[], decoder=decoder)
    _, log_q, log_p_joint = vae(x, num_samples=5)
    return (log_p_joint - log_q - log_p).mean().item()


found = {latents: above(latents) for latents in (1, 2, 10, 50, 784)}
print("1 latent variable: " + "; ".join(f"{n}: {round(value, 1) + 0.0:.1f}" for n, value in found.items())[3:])
PYTHON
)
echo "$seen"
[ "$seen" = "1 latent variable: 719.5; 2: 718.6; 10: 711.3; 50: 674.5; 784: 0.0" ] || exit 1
