#!/usr/bin/env bash
# Does PyTorch's continuous Bernoulli, given logits, integrate to one?
#
# The guess: yes, for any logit. It is made for the grey pixels of a VAE, it takes logits for the sake of precision, and
# its density has a closed form in them: l / (2 sinh(l / 2)) exp(l (x - 1 / 2)).
# The behaviour, with torch 2.13.0: the normalizing constant, the mean and the entropy come from the probability,
# clamped to [eps, 1 - eps]. In float32 they stay those of the logit 15.9, while the rest of the density follows the
# logit. A decoder that is sure of black and white goes far beyond that: its log p(x|z) is too low, by hundreds of nats
# per image, its white pixels have a mean of 0.937, and it has no gradient where the true density still grows.
# Seen: "logit 10: integral 1.00, mean 0.900 (exact 0.900), slope at 1 0.100 (0.100); logit 20: integral 0.80, mean
# 0.937 (exact 0.950), slope at 1 0.000 (0.050); logit 40: integral 0.40, mean 0.937 (exact 0.975), slope at 1 0.000
# (0.025); 784 black pixels of logit -40: 721 nats too low", in one line. The slope is that of log p(1) in the logit.
#
# Exits with 1 if that has changed. Needs Python 3.11 or later, and 6 GB in the temporary folder.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile torch==2.13.0 numpy==2.4.6

seen=$("$folder/venv/bin/python" - << 'PYTHON'
import math

import torch
from torch.distributions import ContinuousBernoulli

x = torch.linspace(0, 1, 100_001)


def of_logit(value):
    """The integral of the density by the trapezoidal rule, its mean, and the slope of log p(1) in the logit."""
    logit = torch.tensor(value, requires_grad=True)
    pixel = ContinuousBernoulli(logits=logit)
    integral = torch.trapezoid(pixel.log_prob(x).double().exp(), x.double())
    (slope,) = torch.autograd.grad(pixel.log_prob(torch.tensor(1.0)), logit)
    exact = 1 / -math.expm1(-value) - 1 / value, 1 / value - 1 / math.expm1(value)
    return (
        f"logit {value:.0f}: integral {integral:.2f}, mean {pixel.mean:.3f} (exact {exact[0]:.3f}), "
        f"slope at 1 {slope:.3f} ({exact[1]:.3f})"
    )


found = [of_logit(value) for value in (10.0, 20.0, 40.0)]
black = ContinuousBernoulli(logits=torch.full((784,), -40.0)).log_prob(torch.zeros(784)).sum()
exact = 784 * math.log(40 / -math.expm1(-40))
print("; ".join(found) + f"; 784 black pixels of logit -40: {exact - black:.0f} nats too low")
PYTHON
)
echo "$seen"
expected="logit 10: integral 1.00, mean 0.900 (exact 0.900), slope at 1 0.100 (0.100)"
expected+="; logit 20: integral 0.80, mean 0.937 (exact 0.950), slope at 1 0.000 (0.050)"
expected+="; logit 40: integral 0.40, mean 0.937 (exact 0.975), slope at 1 0.000 (0.025)"
[ "$seen" = "$expected; 784 black pixels of logit -40: 721 nats too low" ] || exit 1
