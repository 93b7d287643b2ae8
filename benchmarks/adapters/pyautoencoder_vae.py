"""pyautoencoder: its VAE with the Bernoulli likelihood, in a loop of one's own."""

import torch
from pyautoencoder.variational import VAE
from torch import nn
from torch_parts import batches, make_decoder


class Peer:
    def __init__(self, images):
        torch.manual_seed(1)
        self.layers = make_decoder()
        self.vae = VAE(nn.Sequential(nn.Linear(784, 400), nn.ReLU()), self.layers, latent_dim=2)
        self.vae(torch.as_tensor(images[:1]))  # its lazy layers take their widths
        self.optimizer = torch.optim.Adam(self.vae.parameters(), lr=1e-3)
        self.loader = batches(images)

    def epoch(self):
        for batch in self.loader:
            self.optimizer.zero_grad()
            self.loss(batch).backward()
            self.optimizer.step()

    def loss(self, x):
        x = torch.as_tensor(x)
        return self.vae.compute_loss(x, self.vae(x), likelihood="bernoulli").objective

    def posterior(self, x):
        found = self.vae.encode(torch.as_tensor(x))
        return found.mu, found.log_var

    def decoder(self):
        return self.layers[0], self.layers[2]
