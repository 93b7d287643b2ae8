"""rapidae: its VAE with MLPs of this size on flat images and the loss "bce", fitted by Keras 3 on JAX."""

import keras
from rapidae.models.base import VAE_Decoder_MLP, VAE_Encoder_MLP
from rapidae.models.vae import VAE


class Peer:
    def __init__(self, images):
        keras.utils.set_random_seed(1)
        self.images = images
        encoder, self.layers = VAE_Encoder_MLP(784, 2, [400]), VAE_Decoder_MLP(784, 2, [400])
        self.vae = VAE((784,), 2, encoder, self.layers, recon_loss_fn="bce")
        self.vae.compile(keras.optimizers.Adam(1e-3))

    def epoch(self):
        self.vae.fit(self.images, batch_size=128, verbose=0)

    def loss(self, x):
        return self.vae.evaluate(x, batch_size=len(x), verbose=0, return_dict=True)["loss"]

    def posterior(self, x):
        found = self.vae.predict(x, verbose=0)
        return found["z_mean"], found["z_log_var"]

    def decoder(self):
        return self.layers.layers_dict["dense_0"], self.layers.dense_recons

    def evaluate(self, x):
        return self.vae.evaluate(x, batch_size=128, verbose=0, return_dict=True)["loss"]
