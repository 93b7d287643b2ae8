"""What the adapters for PyTorch's packages share: 784-400-2 and its mirror image as torch draws them, and a loader."""

import torch
from torch import nn


class Encoder(nn.Module):
    """x (N, 784) -> mu and logvar of q(z|x), (N, 2) each."""

    def __init__(self):
        super().__init__()
        self.hidden, self.mu, self.logvar = nn.Linear(784, 400), nn.Linear(400, 2), nn.Linear(400, 2)

    def forward(self, x):
        hidden = self.hidden(torch.as_tensor(x)).relu()
        return self.mu(hidden), self.logvar(hidden)


def make_decoder(*output):
    """z (N, 2) -> (N, 784): logits, or what a last layer makes of them."""
    return nn.Sequential(nn.Linear(2, 400), nn.ReLU(), nn.Linear(400, 784), *output)


def batches(images):
    """A loader of batches of 128 in a new order each time."""
    return torch.utils.data.DataLoader(torch.as_tensor(images), 128, shuffle=True)
