"""Keras 3: a Model whose compute_loss gives the loss, compiled and fitted, on the backend that KERAS_BACKEND names."""

import keras
from keras import layers, ops


class VAE(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden, self.mu, self.logvar = layers.Dense(400, "relu"), layers.Dense(2), layers.Dense(2)
        self.layer, self.logits = layers.Dense(400, "relu"), layers.Dense(784)
        self.seeds = keras.random.SeedGenerator(1)

    def call(self, x):
        hidden = self.hidden(x)
        mu, logvar = self.mu(hidden), self.logvar(hidden)
        z = mu + ops.exp(0.5 * logvar) * keras.random.normal(ops.shape(mu), seed=self.seeds)
        return self.logits(self.layer(z)), mu, logvar

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        logits, mu, logvar = y_pred
        bce = 784 * keras.losses.binary_crossentropy(x, logits, from_logits=True)
        return ops.mean(bce + 0.5 * ops.sum(mu**2 + ops.exp(logvar) - 1 - logvar, axis=-1))


class Peer:
    def __init__(self, images):
        keras.utils.set_random_seed(1)
        self.images = images
        self.model = VAE()
        self.model.compile(keras.optimizers.Adam(1e-3))
        self.model(images[:1])

    def epoch(self):
        self.model.fit(self.images, batch_size=128, verbose=0)

    def loss(self, x):
        return self.model.evaluate(x, batch_size=len(x), verbose=0)

    def posterior(self, x):
        return self.model.predict(x, verbose=0)[1:]

    def decoder(self):
        return self.model.layer, self.model.logits

    def evaluate(self, x):
        return self.model.evaluate(x, batch_size=128, verbose=0)
