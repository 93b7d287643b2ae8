"""TensorFlow Probability: its layers in a tf_keras model, the KL as a KLDivergenceRegularizer, as in its tutorial."""

import tensorflow as tf
import tensorflow_probability as tfp
import tf_keras
from tf_keras import layers

tfd, tfpl = tfp.distributions, tfp.layers


class Peer:
    def __init__(self, images):
        tf.random.set_seed(1)
        self.images = images
        prior = tfd.MultivariateNormalDiag(tf.zeros(2))
        x = layers.Input(784)
        self.numbers = tf_keras.Model(x, layers.Dense(4)(layers.Dense(400, "relu")(x)))
        posterior = tfpl.DistributionLambda(
            lambda t: tfd.MultivariateNormalDiag(t[:, :2], tf.exp(0.5 * t[:, 2:])),
            activity_regularizer=tfpl.KLDivergenceRegularizer(prior, use_exact_kl=True),
        )
        self.hidden, self.logits = layers.Dense(400, "relu"), layers.Dense(784)
        z = posterior(self.numbers(x))
        image = tfpl.IndependentBernoulli(784, tfd.Bernoulli.logits)(self.logits(self.hidden(z)))
        self.model = tf_keras.Model(x, image)
        self.model.compile(tf_keras.optimizers.Adam(1e-3), loss=lambda x, p: -p.log_prob(x))

    def epoch(self):
        self.model.fit(self.images, self.images, batch_size=128, verbose=0)

    def loss(self, x):
        return self.model.evaluate(x, x, batch_size=len(x), verbose=0)

    def posterior(self, x):
        return tf.split(self.numbers(x), 2, axis=1)

    def decoder(self):
        return self.hidden, self.logits

    def evaluate(self, x):
        return self.model.evaluate(x, x, batch_size=128, verbose=0)
