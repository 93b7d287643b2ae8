"""The layers of torch_parts.py in the form of pythae, which multivae uses as well, and the batch sizes of a trainer."""

import torch_parts
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder

SIZES = {"per_device_train_batch_size": 128, "per_device_eval_batch_size": 128}


class Encoder(BaseEncoder):
    latent_dim = 2

    def __init__(self):
        super().__init__()
        self.layers = torch_parts.Encoder()

    def forward(self, x):
        mu, logvar = self.layers(x)
        return ModelOutput(embedding=mu, log_covariance=logvar)


class Decoder(BaseDecoder):
    latent_dim = 2

    def __init__(self, *output):
        super().__init__()
        self.layers = torch_parts.make_decoder(*output)

    def forward(self, z):
        return ModelOutput(reconstruction=self.layers(z))
