"""pixyz: its VAE of an inference and a generator network, with the closed KL as regularizer, trained batch by batch."""

import torch
from pixyz.distributions import Bernoulli, Normal
from pixyz.losses import KullbackLeibler
from pixyz.models import VAE
from torch_parts import Encoder, batches, make_decoder


class Inference(Normal):
    def __init__(self):
        super().__init__(var=["z"], cond_var=["x"], name="q")
        self.layers = Encoder()

    def forward(self, x):
        mu, logvar = self.layers(x)
        return {"loc": mu, "scale": torch.exp(0.5 * logvar)}


class Generator(Bernoulli):
    def __init__(self):
        super().__init__(var=["x"], cond_var=["z"], name="p")
        self.layers = make_decoder(torch.nn.Sigmoid())

    def forward(self, z):
        return {"probs": self.layers(z)}


class Peer:
    def __init__(self, images):
        torch.manual_seed(1)
        self.q, self.p = Inference(), Generator()
        prior = Normal(var=["z"], features_shape=[2], loc=torch.tensor(0.0), scale=torch.tensor(1.0), name="prior")
        self.vae = VAE(self.q, self.p, regularizer=KullbackLeibler(self.q, prior), optimizer_params={"lr": 1e-3})
        self.posterior, self.loader = self.q.layers, batches(images)

    def epoch(self):
        for batch in self.loader:
            self.vae.train({"x": batch})

    def loss(self, x):
        return self.vae.test({"x": torch.as_tensor(x)})

    def decoder(self):
        return self.p.layers[0], self.p.layers[2]
