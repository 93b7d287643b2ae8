"""pythae: its VAE with Bernoulli pixels and layers of this size, in its BaseTrainer."""

import torch
from pythae.data.datasets import BaseDataset
from pythae.models import VAE, VAEConfig
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from pythae_parts import SIZES, Decoder, Encoder


class Peer:
    def __init__(self, images):
        torch.manual_seed(1)
        config = VAEConfig(input_dim=(784,), latent_dim=2, reconstruction_loss="bce")
        self.model = VAE(config, Encoder(), Decoder(torch.nn.Sigmoid()))
        self.trainer = self.make_trainer(images)

    def make_trainer(self, images):
        config = BaseTrainerConfig("runs", learning_rate=1e-3, no_cuda=True, **SIZES)
        trainer = BaseTrainer(self.model, dataset(images), dataset(images), config)
        trainer.prepare_training()
        return trainer

    def epoch(self):
        self.trainer.train_step(1)

    def loss(self, x):
        return self.model(dataset(x)[:]).loss

    def posterior(self, x):
        return self.model.encoder(x).to_tuple()

    def decoder(self):
        return self.model.decoder.layers[0], self.model.decoder.layers[2]

    def evaluate(self, x):
        return self.make_trainer(x).eval_step(1)

    def log_p(self, x):
        return self.model.get_nll(torch.as_tensor(x))


def dataset(x):
    return BaseDataset(torch.as_tensor(x), torch.zeros(len(x)))
