#!/usr/bin/env bash
# How often does TensorFlow Probability's KLDivergenceRegularizer add the KL divergence to the loss?
#
# The guess: once per image. It is the activity_regularizer of the layer that gives q(z|x), in the package's own VAE.
# The behaviour, with tensorflow-probability 0.25.0 and tf-keras 2.21.0: the layer adds it twice, once for the
# distribution and once for the tensor that stands for it. KLDivergenceAddLoss adds it once, but its sum over the batch
# to a mean over the batch: it counts as often as there are images in a batch.
# Seen, with a KL of 0.5 nats per image and a batch of 8: "regularizer: 2.00 times; layer: 8.00 times".
#
# Exits with 1 if that has changed. Needs Python 3.11 or 3.12.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile tensorflow-probability==0.25.0 tensorflow-cpu==2.21.0 tf-keras==2.21.0

seen=$("$folder/venv/bin/python" - 2> "$folder/log" << 'PYTHON'
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
import tf_keras

prior = tfp.distributions.MultivariateNormalDiag(tf.zeros(1))
x = np.ones((8, 1), np.float32)  # q(z|x) = N(1, 1): half a nat from N(0, 1)


def times(is_layer):
    """The part of the loss that is no reconstruction, over the KL divergence of an image."""
    adds = {} if is_layer else {"activity_regularizer": tfp.layers.KLDivergenceRegularizer(prior, use_exact_kl=True)}
    image = tf_keras.layers.Input(1)
    z = tfp.layers.DistributionLambda(lambda t: tfp.distributions.MultivariateNormalDiag(t, tf.ones_like(t)), **adds)(image)
    if is_layer:
        z = tfp.layers.KLDivergenceAddLoss(prior, use_exact_kl=True)(z)
    model = tf_keras.Model(image, z)
    model.compile(loss=lambda x, z: 0 * tf.reduce_sum(tf.convert_to_tensor(z), -1))
    return model.evaluate(x, x, batch_size=8, verbose=0) / 0.5


print(f"regularizer: {times(False):.2f} times; layer: {times(True):.2f} times")
PYTHON
)
echo "$seen"
[ "$seen" = "regularizer: 2.00 times; layer: 8.00 times" ] || exit 1
