#!/usr/bin/env bash
# Does looking at the test set through a DataLoader leave the random numbers of training alone?
#
# The guess: yes. A DataLoader that does not shuffle, has no workers and adds no noise has nothing to draw.
# The behaviour, with torch 2.13.0: each pass over it takes a number from the global generator, as the seed of workers
# that it does not have. So a run that evaluates after each epoch has other noise, and other weights, than one that does
# not, or that looks at two sets. With a generator of its own (generator=torch.Generator()) the loader draws from that.
# Seen: "noise after a pass: other; with a generator of its own: the same; weights after a second epoch: other".
#
# Exits with 1 if that has changed. Needs Python 3.11 or later, and 6 GB in the temporary folder.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile torch==2.13.0 numpy==2.4.6

seen=$("$folder/venv/bin/python" - << 'PYTHON'
import torch
from torch.utils.data import DataLoader

data = torch.linspace(0, 1, 40).view(20, 2)


def look(generator=None):
    """A pass over the data that changes nothing."""
    for _ in DataLoader(data, batch_size=10, shuffle=False, num_workers=0, generator=generator):
        pass


def noise(*looks):
    torch.manual_seed(1)
    for arguments in looks:
        look(*arguments)
    return torch.randn(5)


def weights(evaluates):
    """Two epochs of a line through the data, with noise on the input, and perhaps a look after each."""
    torch.manual_seed(1)
    layer = torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adam(layer.parameters())
    for _ in range(2):
        loss = (layer(data + 0.1 * torch.randn_like(data)) - data).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if evaluates:
            with torch.no_grad():
                look()
    return layer.weight


def compare(one, other):
    return "the same" if torch.equal(one, other) else "other"


after_pass = compare(noise(), noise(()))
own = compare(noise(), noise((torch.Generator(),)))
trained = compare(weights(False), weights(True))
print(f"noise after a pass: {after_pass}; with a generator of its own: {own}; weights after a second epoch: {trained}")
PYTHON
)
echo "$seen"
[ "$seen" = "noise after a pass: other; with a generator of its own: the same; weights after a second epoch: other" ] || exit 1
