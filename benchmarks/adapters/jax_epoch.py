"""jax_scan.py of this project's benchmarks: an epoch over the full batches as one compiled lax.scan."""

import functools
import sys
from pathlib import Path

import jax
import jax.numpy as jnp

sys.path.append(str(Path(__file__).parents[1]))

import jax_scan


class Peer:
    def __init__(self, images):
        self.images = jnp.asarray(images)
        self.state = jax_scan.initial_state()
        step = functools.partial(jax_scan.train_step, self.images)
        self.batches = jax.jit(lambda state, noise: jax.lax.scan(step, state, noise), donate_argnums=0)
        self.key = jax.random.key(1)

    def epoch(self):
        order = jax.random.permutation(self.next_key(), len(self.images))
        order = order[: len(order) // 128 * 128].reshape(-1, 128)
        self.state, losses = self.batches(self.state, (order, jax.random.normal(self.next_key(), (*order.shape, 2))))
        losses.block_until_ready()

    def next_key(self):
        self.key, key = jax.random.split(self.key)
        return key

    def loss(self, x):
        return jax_scan.loss(self.state[0], x, jax.random.normal(self.next_key(), (len(x), 2)))[0]

    def posterior(self, x):
        encoder, head, *_ = self.state[0]
        return jnp.split(jax_scan.apply_layer(head, jax.nn.relu(jax_scan.apply_layer(encoder, x))), 2, axis=1)

    def decoder(self):
        return [(weight.T, bias) for weight, bias in self.state[0][2:]]
