"""NumPyro: SVI with Trace_ELBO, an epoch as one compiled loop over the full batches, as in its VAE example."""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax.example_libraries import stax
from numpyro.infer import SVI, RenyiELBO, Trace_ELBO

ENCODE = stax.serial(stax.Dense(400), stax.Relu, stax.FanOut(2), stax.parallel(stax.Dense(2), stax.Dense(2)))
DECODE = stax.serial(stax.Dense(400), stax.Relu, stax.Dense(784))


def model(x):
    decode = numpyro.module("decoder", DECODE, (len(x), 2))
    with numpyro.plate("batch", len(x)):
        z = numpyro.sample("z", dist.Normal(jnp.zeros((len(x), 2)), 1.0).to_event(1))
        logits = decode(z)  # not a Bernoulli's: its log density of a grey pixel is minus infinity
        numpyro.factor("x", (x * logits - jax.nn.softplus(logits)).sum(-1))


def guide(x):
    mu, logvar = numpyro.module("encoder", ENCODE, x.shape)(x)
    with numpyro.plate("batch", len(x)):
        numpyro.sample("z", dist.Normal(mu, jnp.exp(0.5 * logvar)).to_event(1))


class Peer:
    def __init__(self, images):
        self.svi = SVI(model, guide, numpyro.optim.Adam(1e-3), Trace_ELBO())
        self.state = self.svi.init(jax.random.key(1), jnp.asarray(images[:128]))
        self.images = jnp.asarray(images)
        self.batches = jax.jit(lambda state, order: jax.lax.scan(self.step, state, order))

    def step(self, state, rows):
        return self.svi.update(state, self.images[rows])

    def epoch(self):
        order = jax.random.permutation(self.state.rng_key, len(self.images))[: len(self.images) // 128 * 128]
        self.state, losses = self.batches(self.state, order.reshape(-1, 128))
        losses.block_until_ready()

    def loss(self, x):
        self.state = self.state._replace(rng_key=jax.random.split(self.state.rng_key)[0])
        return self.svi.evaluate(self.state, x)

    def posterior(self, x):
        return ENCODE[1](self.svi.get_params(self.state)["encoder$params"], x)

    def decoder(self):
        hidden, _, output = self.svi.get_params(self.state)["decoder$params"]
        return [(weight.T, bias) for weight, bias in (hidden, output)]

    def log_p(self, x):
        return -RenyiELBO().loss(self.state.rng_key, self.svi.get_params(self.state), model, guide, x) / len(x)
