#!/usr/bin/env bash
# Does beta change what PyOD's VAE learns?
#
# The guess: yes. It is documented as the weight of the KL divergence, 1 for the regular VAE, and a beta of 1,000 all but
# forbids a posterior other than the prior.
# The behaviour, with pyod 3.6.7 and torch 2.13.0: the KL divergence is clamped to [0, capacity], and the capacity is 0 by
# default. So the loss has no KL, its gradient is 0, and every beta gives the same weights, bit for bit: an auto-encoder
# with noise that it learns to switch off. A small capacity does not mend it: a KL above it has no gradient either.
# Seen: "beta 1 and 1000: the same weights; with capacity 0.01: the same weights; with capacity 1e9: other weights".
#
# Exits with 1 if that has changed. Needs Python 3.11 or later, and 6 GB in the temporary folder.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile pyod==3.6.7 torch==2.13.0 numpy==2.4.6 scikit-learn==1.9.1 tqdm==4.70.1

seen=$("$folder/venv/bin/python" - << 'PYTHON'
import numpy as np
import torch
from pyod.models.vae import VAE

x = np.random.default_rng(0).normal(0, 3, (200, 5)).astype(np.float32)


def compare(**settings):
    """Whether a detector learns the same weights with beta 1 and with beta 1,000."""
    weights = []
    for beta in (1.0, 1000.0):
        model = VAE(beta=beta, epoch_num=3, verbose=0, random_state=1, device=torch.device("cpu"), **settings)
        model.fit(x)
        weights.append(torch.cat([value.detach().flatten() for value in model.model.parameters()]))
    return "the same weights" if torch.equal(*weights) else "other weights"


print(
    f"beta 1 and 1000: {compare()}; with capacity 0.01: {compare(capacity=0.01)}; "
    f"with capacity 1e9: {compare(capacity=1e9)}"
)
PYTHON
)
echo "$seen"
expected="beta 1 and 1000: the same weights; with capacity 0.01: the same weights; with capacity 1e9: other weights"
[ "$seen" = "$expected" ] || exit 1
