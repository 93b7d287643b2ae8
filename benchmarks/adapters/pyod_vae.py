"""PyOD: its VAE detector with one hidden layer each way, pixels as they are and without dropout."""

import torch
from pyod.models.vae import VAE
from pyod.utils.torch_utility import TorchDataset


class Peer:
    def __init__(self, images):
        widths = {"encoder_neuron_list": [400], "decoder_neuron_list": [400]}
        settings = {"preprocessing": False, "dropout_rate": 0, "output_activation_name": "sigmoid", "verbose": 0}
        self.detector = VAE(batch_size=128, epoch_num=1, device=torch.device("cpu"), **widths, **settings)
        self.detector.feature_size = 784
        self.detector.build_model()
        self.detector.training_prepare()
        self.loader = torch.utils.data.DataLoader(TorchDataset(images), 128, shuffle=True, drop_last=True)

    def epoch(self):
        self.detector.train(self.loader)

    def loss(self, x):
        x = torch.as_tensor(x)
        settings = {"beta": self.detector.beta, "capacity": self.detector.capacity}
        return self.detector.criterion(x, *self.detector.model(x), **settings)

    def posterior(self, x):
        return self.detector.model.encode(torch.as_tensor(x))

    def decoder(self):
        return [module for module in self.detector.model.decoder.modules() if hasattr(module, "weight")]
