"""Pyro: SVI with Trace_ELBO, a model and a guide with a plate over the batch, as in its VAE tutorial."""

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, RenyiELBO, Trace_ELBO
from torch_parts import Encoder, batches, make_decoder


class Peer:
    def __init__(self, images):
        pyro.set_rng_seed(1)
        self.posterior, self.layers = Encoder(), make_decoder()
        self.svi = SVI(self.model, self.guide, pyro.optim.Adam({"lr": 1e-3}), Trace_ELBO())
        self.loader = batches(images)

    def model(self, x):
        pyro.module("decoder", self.layers)
        with pyro.plate("batch", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1))
            pixels = dist.Bernoulli(logits=self.layers(z), validate_args=False)  # grey pixels are not in its support
            pyro.sample("x", pixels.to_event(1), obs=x)

    def guide(self, x):
        pyro.module("encoder", self.posterior)
        with pyro.plate("batch", len(x)):
            mu, logvar = self.posterior(x)
            pyro.sample("z", dist.Normal(mu, torch.exp(0.5 * logvar)).to_event(1))

    def epoch(self):
        for batch in self.loader:
            self.svi.step(batch)

    def loss(self, x):
        return self.svi.evaluate_loss(torch.as_tensor(x))

    def decoder(self):
        return self.layers[0], self.layers[2]

    def log_p(self, x):
        return -RenyiELBO().loss(self.model, self.guide, torch.as_tensor(x)) / len(x)
