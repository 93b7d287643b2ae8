"""This project's model in Lightning's loop."""

import sys
from pathlib import Path

import lightning
import torch
from torch_parts import batches

sys.path.append(str(Path(__file__).parents[2]))

from model import VAE


class Peer(lightning.LightningModule):
    def __init__(self, images):
        super().__init__()
        torch.manual_seed(1)
        self.model = VAE()
        self.optimizer = torch.optim.Adam(self.parameters(), lr=1e-3)
        self.loader = batches(images)

    def configure_optimizers(self):
        return self.optimizer

    def training_step(self, batch):
        return self.loss(batch)

    def validation_step(self, batch):
        self.log("loss", self.loss(batch))

    def epoch(self):
        make_trainer(max_epochs=1).fit(self, self.loader)

    def loss(self, x):
        bce, kld, *_ = self.model(torch.as_tensor(x), torch.randn(len(x), 2))
        return (bce + kld).mean()

    def posterior(self, x):
        return self.model.encode(torch.as_tensor(x))

    def decoder(self):
        return self.model.decoder[0], self.model.decoder[2]

    def evaluate(self, x):
        return make_trainer().validate(self, torch.utils.data.DataLoader(torch.as_tensor(x), 128))[0]["loss"]


def make_trainer(**settings):
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    return lightning.Trainer(accelerator="cpu", **quiet, **settings)
