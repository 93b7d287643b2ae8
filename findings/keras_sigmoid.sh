#!/usr/bin/env bash
# Does a reshape after the decoder's sigmoid change the loss in Keras, or does its backend?
#
# The guess: neither. binary_crossentropy has from_logits=False by default: it clips the probabilities at 1e-7, so a
# white pixel with the logit -20 costs 16.1 nats, without a gradient, wherever Keras runs.
# The behaviour, with keras 3.15.1, tensorflow-cpu 2.21.0, jax 0.10.2 and torch 2.14.1: on TensorFlow the loss asks
# whether the decoder's output comes straight from a sigmoid, and then takes that one's input instead: 20 nats, with a
# gradient of -1. A Reshape after the sigmoid, to a picture, hides it, and a pixel that is so wrong stays wrong. On JAX
# and PyTorch there is no such search.
# Seen, the loss and its gradient in the logit: "tensorflow: 20.0, -1; reshaped 16.1, 0; jax: 16.1, 0; reshaped 16.1, 0;
# torch: 16.1, 0; reshaped 16.1, 0", in one line.
#
# Exits with 1 if that has changed. Needs Python 3.11 or later, and 6 GB in the temporary folder.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile keras==3.15.1 tensorflow-cpu==2.21.0 jax==0.10.2 jaxlib==0.10.2 \
    torch==2.14.1 numpy==2.4.6

cat > "$folder/pixel.py" << 'PYTHON'
import keras
import numpy as np


def pixel(*further):
    """What a white pixel with the logit -20 costs, and the gradient of that in the logit."""
    logit = keras.initializers.Constant(-20.0)
    decoder = keras.layers.Dense(1, activation="sigmoid", kernel_initializer="zeros", bias_initializer=logit)
    model = keras.Sequential([keras.Input((1,)), decoder, *further])
    model.compile(optimizer=keras.optimizers.SGD(1.0), loss="binary_crossentropy")
    x = np.zeros((1, 1), np.float32)
    white = np.ones((1, *model.output_shape[1:]), np.float32)
    loss = model.evaluate(x, white, verbose=0)
    model.fit(x, white, verbose=0)  # one step of gradient descent
    return f"{loss:.1f}, {-20 - float(decoder.get_weights()[1][0]) + 0.0:.0f}"


print(f"{keras.backend.backend()}: {pixel()}; reshaped {pixel(keras.layers.Reshape((1, 1, 1)))}")
PYTHON
seen=""
for backend in tensorflow jax torch; do
    found=$(KERAS_BACKEND=$backend "$folder/venv/bin/python" "$folder/pixel.py" 2> "$folder/log")
    seen+="${seen:+; }$found"
done
echo "$seen"
expected="tensorflow: 20.0, -1; reshaped 16.1, 0; jax: 16.1, 0; reshaped 16.1, 0; torch: 16.1, 0; reshaped 16.1, 0"
[ "$seen" = "$expected" ] || exit 1
