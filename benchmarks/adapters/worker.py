"""In a peer's environment: for each line on stdin, train an epoch or measure the peer, and print a line of JSON.

python worker.py ADAPTER IMAGES.npz: the adapter is a file of this folder. The lines are "epoch" and "measure".
"""

import importlib
import json
import os
import resource
import sys
import tempfile
from pathlib import Path

import numpy as np

DRAWS = 100  # of the noise in a loss
EVALUATIONS = 8  # each with the images in another order, as a package may shuffle them, always in the same way


def main(adapter, path):
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a package prints is no reply
    os.chdir(tempfile.mkdtemp(dir=Path(path).parent))  # what a package writes goes there
    data = np.load(path)
    peer = importlib.import_module(adapter).Peer(pixels(data["train"]))
    answer(replies, {})
    for line in sys.stdin:
        if line.strip() == "epoch":
            peer.epoch()
            answer(replies, {})
        else:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            answer(replies, {"peak": peak, **measure(peer, pixels(data["test"]))})


def answer(replies, content):
    """Print a line of JSON and send it at once."""
    print(json.dumps(content), file=replies, flush=True)


def pixels(images):
    """uint8 (N, 784) -> float32 (N, 784) in [0, 1]."""
    return images.astype(np.float32) / 255


def measure(peer, uneven):
    """A peer's losses of a batch, its posterior and decoder, and what it makes of one image more than a batch."""
    x = uneven[:-1]
    mu, logvar = (array(value) for value in peer.posterior(uneven))
    found = {
        "mu": mu.tolist(),
        "logvar": logvar.tolist(),
        "decoder": [[array(value).tolist() for value in weights(layer)] for layer in peer.decoder()],
        "losses": [float(array(peer.loss(x))) for _ in range(DRAWS)],
    }
    if hasattr(peer, "evaluate"):
        orders = [np.roll(uneven, i * len(uneven) // EVALUATIONS, axis=0) for i in range(EVALUATIONS)]
        found["evaluated"] = [float(peer.evaluate(images)) for images in orders]
    if hasattr(peer, "log_p"):
        found["log_p"] = float(peer.log_p(x))
    return found


def weights(layer):
    """The weight (n_out, n_in) and bias (n_out,) of a layer of torch, of one of Keras, or of a pair of these."""
    if hasattr(layer, "kernel"):
        return array(layer.kernel).T, layer.bias
    if hasattr(layer, "weight"):
        return layer.weight, layer.bias
    return layer


def array(value):
    """A tensor of any library as an array of NumPy."""
    return np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)


if __name__ == "__main__":
    main(*sys.argv[1:])
