#!/usr/bin/env bash
# Is the importance-weighted bound of Pyro a bound where its plate takes a batch of the data, as NumPyro's is?
#
# The guess: yes. Both have RenyiELBO(alpha=0), which their documentation calls the bound of importance weighted
# autoencoders, and both scale a plate with subsample_size to the whole data. So the same model and guide give the same
# bound, below log p(x), whether the plate holds all of the data or a batch.
# The behaviour, with pyro-ppl 1.9.2 (torch 2.13.0) and numpyro 0.22.0 (jax 0.10.2): NumPyro takes the scale out of the
# importance weights and puts it before the sum over the plate. Pyro leaves it in: each log weight is multiplied by
# N / batch before the average over particles, which then is nearly that of the largest weight. Its "bound" lies above
# log p(x). A batch of all the data shows nothing of it.
# Seen, with z ~ N(0, 1), x ~ N(z, 1), q(z|x) = N(x / 2, 1), 100 particles, in nats per point above log p(x): "pyro: all
# the data -0.001, a tenth of it 0.217; numpyro: all the data -0.001, a tenth of it 0.003".
#
# Exits with 1 if that has changed. Needs Python 3.11 or later, and 6 GB in the temporary folder.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile torch==2.13.0 pyro-ppl==1.9.2 numpyro==0.22.0 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6

"$folder/venv/bin/python" - << 'PYTHON' || exit 1
import sys

import jax
import numpy as np
import numpyro
import numpyro.distributions
import pyro
import torch

N, PARTICLES, REPEATS = 1000, 100, 20
x = np.random.default_rng(0).normal(0, 2**0.5, N).astype(np.float32)
log_p = (-0.5 * np.log(2 * np.pi * 2) - x**2 / 4).mean()


def make(library, x, size):
    """A model and a guide with a plate that takes `size` of the points."""
    normal = library.distributions.Normal

    def model():
        with library.plate("data", N, subsample_size=size) as rows:
            z = library.sample("z", normal(0.0, 1.0))
            library.sample("x", normal(z, 1.0), obs=x[rows])

    def guide():
        with library.plate("data", N, subsample_size=size) as rows:
            library.sample("z", normal(x[rows] / 2, 1.0))

    return model, guide


def of_pyro(size):
    """The mean of the bound per point."""
    pyro.set_rng_seed(1)
    bound = pyro.infer.RenyiELBO(alpha=0, num_particles=PARTICLES, vectorize_particles=True, max_plate_nesting=1)
    return -np.mean([bound.loss(*make(pyro, torch.from_numpy(x), size)) for _ in range(REPEATS)]) / N


def of_numpyro(size):
    """The same of NumPyro."""
    bound = numpyro.infer.RenyiELBO(alpha=0, num_particles=PARTICLES)
    model, guide = make(numpyro, jax.numpy.asarray(x), size)
    return -np.mean([bound.loss(key, {}, model, guide) for key in jax.random.split(jax.random.key(1), REPEATS)]) / N


pairs = [(of(N) - log_p, of(N // 10) - log_p) for of in (of_pyro, of_numpyro)]
print("; ".join(f"{name}: all the data {a:.3f}, a tenth of it {b:.3f}" for name, (a, b) in zip(("pyro", "numpyro"), pairs)))
(all_pyro, batch_pyro), (all_numpyro, batch_numpyro) = pairs
holds = all(-0.1 < value < 0.05 for value in (all_pyro, all_numpyro, batch_numpyro)) and batch_pyro > 0.1
sys.exit(not holds)
PYTHON
