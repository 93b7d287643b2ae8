#!/usr/bin/env bash
# Is the loss of pythae's importance weighted auto-encoder minus a bound on log p(x)?
#
# The guess: yes. It is documented as the IWAE of Burda et al. (2016), whose loss is -log of the mean of the weights
# w = p(x, z) / q(z|x). With one sample it is minus the ELBO, with more it rises towards log p(x), and never passes it.
# The behaviour, with pythae 0.1.2 and torch 2.13.0: the loss is minus the mean of log w, weighted by w / sum w. Its
# gradient is that of the bound, so training is right. Its value is not: with more samples, minus the loss goes to
# log p(x) + KL(p(z|x) || q(z|x)). A worse encoder then has a lower loss, and the trainer keeps the epoch of lowest loss.
# Seen, with z ~ N(0, 1), x ~ N(z, 1) and a collapsed encoder, q(z|x) = N(0, 1), in nats above log p(x), and in brackets
# the bound of Burda et al. from as many samples: "1 sample: -0.66 (bound -0.66); 5: 0.19 (-0.10); 500: 0.35 (0.00)".
#
# Exits with 1 if that has changed. Needs Python 3.11 or later, and 6 GB in the temporary folder.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile pythae==0.1.2 torch==2.13.0 numpy==2.4.6

seen=$("$folder/venv/bin/python" - 2> "$folder/log" << 'PYTHON'
import math

import torch
from pythae.models import IWAE, IWAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from torch.distributions import Normal


class Collapsed(BaseEncoder):
    """q(z|x) = N(0, 1) for every x."""

    def forward(self, x):
        return ModelOutput(embedding=torch.zeros_like(x), log_covariance=torch.zeros_like(x))


class Identity(BaseDecoder):
    """p(x|z) = N(z, 1)."""

    def forward(self, z):
        return ModelOutput(reconstruction=z)


torch.manual_seed(0)
x = math.sqrt(2) * torch.randn(100_000, 1)
constant = 0.5 * math.log(2 * math.pi)  # of p(x|z); pythae leaves it out
log_p = Normal(0.0, math.sqrt(2)).log_prob(x).mean().item() + constant


def above(samples):
    """By how much minus the loss, and the bound of Burda et al., exceed log p(x)."""
    config = IWAEConfig(input_dim=(1,), latent_dim=1, number_samples=samples, reconstruction_loss="mse")
    model = IWAE(config, Collapsed(), Identity())
    loss = model({"data": x}).loss.item()
    log_w = -0.5 * (x - torch.randn(len(x), samples)).square()
    bound = (log_w.logsumexp(1) - math.log(samples)).mean().item()
    return f"{round(-loss - log_p, 2) + 0.0:.2f} ({round(bound - log_p, 2) + 0.0:.2f})"


first = above(1).replace("(", "(bound ")
print(f"1 sample: {first}; " + "; ".join(f"{samples}: {above(samples)}" for samples in (5, 500)))
PYTHON
) || { cat "$folder/log"; exit 1; }
echo "$seen"
[ "$seen" = "1 sample: -0.66 (bound -0.66); 5: 0.19 (-0.10); 500: 0.35 (0.00)" ] || exit 1
