#!/usr/bin/env bash
# Can multivae's default decoder learn images that are all black, under a Bernoulli likelihood?
#
# The guess: yes, at once: the output's bias is enough, and the loss goes to 0 nats per image.
# The behaviour, with multivae 1.0.3 and torch 2.13.0: the Bernoulli likelihood takes what a decoder gives as logits, as
# its configuration says, and the decoder that the package itself makes ends with a sigmoid. So every pixel's probability
# lies between 0.50 and 0.73, and a black pixel costs at least log 2. No training goes below that.
# Seen, for 100 black pixels: "after 300 epochs 69.33 nats per image, of which log 2 per pixel is 69.31".
#
# Exits with 1 if that has changed. Needs Python 3.11 or later, and 6 GB in the temporary folder.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile multivae==1.0.3 pythae==0.1.2 torch==2.13.0 numpy==2.4.6

cd "$folder"
"$folder/venv/bin/python" - << 'PYTHON'
import math
import sys

import torch
from multivae.data.datasets import MultimodalBaseDataset
from multivae.models import MVAE, MVAEConfig

torch.manual_seed(1)
settings = {"decoders_dist": {"x": "bernoulli"}, "use_subsampling": False, "warmup": 0}
model = MVAE(MVAEConfig(n_modalities=1, latent_dim=2, input_dims={"x": (1, 10, 10)}, **settings))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
black = MultimodalBaseDataset({"x": torch.zeros(64, 1, 10, 10)})
for _ in range(300):
    loss = model(black).loss
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print(f"after 300 epochs {loss:.2f} nats per image, of which log 2 per pixel is {100 * math.log(2):.2f}")
sys.exit(not 100 * math.log(2) <= loss.item() < 70)
PYTHON
