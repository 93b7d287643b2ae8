#!/usr/bin/env bash
# Is the evidence of BlackJAX's two kinds of tempered sequential Monte Carlo log p(x)?
#
# The guess: yes, the sum of log_likelihood_increment, whether a power of the likelihood grows (tempered_smc) or the data
# come in one after the other (partial_posteriors_smc). More moves of the particles make both better.
# The behaviour, with blackjax 1.7.1 and jax 0.10.2: tempered_smc moves the particles at the old temperature and then
# weighs them. partial_posteriors_smc moves them at the new data, and then weighs them by the new data again, which so
# count twice: the evidence is too high, the posterior too narrow, and both the more so the better the particles move.
# Seen, log p(x) and the posterior's standard deviation of ten numbers, with 5 and with 20 moves: "exact: -13.7, 0.30;
# tempered: -13.7, 0.30 and -13.7, 0.30; number by number: -12.7, 0.29 and -12.5, 0.29; all at once: -12.7, 0.24 and
# -12.3, 0.22", in one line.
#
# Exits with 1 if that has changed. Needs Python 3.11 or later.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile blackjax==1.7.1 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6 scipy==1.17.1

seen=$(JAX_PLATFORMS=cpu "$folder/venv/bin/python" - 2> "$folder/log" << 'PYTHON'
import blackjax
import jax
import jax.numpy as jnp
import numpy as np
from blackjax.mcmc.random_walk import normal
from blackjax.smc import extend_params, resampling

# z ~ N(0, 1), and ten numbers x ~ N(z, 1): log p(x) and p(z|x) are known.
x = np.random.default_rng(0).normal(1, 1, 10).round(2)
variance = 1 / (1 + len(x))
exact = -0.5 * (len(x) * np.log(2 * np.pi) - np.log(variance) + np.sum(x**2) - variance * np.sum(x) ** 2)


def log_prior(z):
    return -0.5 * (z**2 + jnp.log(2 * jnp.pi))


def log_likelihood(z, is_in=1.0):
    return jnp.sum(is_in * -0.5 * ((x - z) ** 2 + jnp.log(2 * jnp.pi)))


def run(algorithm, state, stages):
    """log p(x) and the posterior's standard deviation."""
    evidence, step = 0.0, jax.jit(algorithm.step)
    for key, stage in zip(jax.random.split(jax.random.key(3), len(stages)), stages):
        state, info = step(key, state, stage)
        evidence += info.log_likelihood_increment
    mean = jnp.sum(state.weights * state.particles)
    return f"{evidence:.1f}, {jnp.sqrt(jnp.sum(state.weights * (state.particles - mean) ** 2)):.2f}"


walk = blackjax.additive_step_random_walk.build_kernel()
options = dict(
    mcmc_step_fn=lambda key, state, logdensity, sigma: walk(key, state, logdensity, normal(sigma)),
    mcmc_init_fn=blackjax.additive_step_random_walk.init,
    mcmc_parameters=extend_params({"sigma": jnp.array(0.6)}),
    resampling_fn=resampling.systematic,
)
draws = jax.random.normal(jax.random.key(1), (20_000,))


def of_tempered(moves):
    algorithm = blackjax.tempered_smc(log_prior, log_likelihood, num_mcmc_steps=moves, **options)
    return run(algorithm, algorithm.init(draws), jnp.linspace(0, 1, 11)[1:])


def of_partial(moves, sizes):
    algorithm = blackjax.partial_posteriors_smc(
        num_mcmc_steps=moves,
        partial_logposterior_factory=lambda is_in: lambda z: log_prior(z) + log_likelihood(z, is_in),
        **options,
    )
    return run(algorithm, algorithm.init(draws, len(x)), [jnp.arange(len(x)) < size for size in sizes])


print(
    f"exact: {exact:.1f}, {variance**0.5:.2f}; tempered: {of_tempered(5)} and {of_tempered(20)}; "
    f"number by number: {of_partial(5, range(1, 11))} and {of_partial(20, range(1, 11))}; "
    f"all at once: {of_partial(5, [10])} and {of_partial(20, [10])}"
)
PYTHON
)
echo "$seen"
expected="exact: -13.7, 0.30; tempered: -13.7, 0.30 and -13.7, 0.30"
expected+="; number by number: -12.7, 0.29 and -12.5, 0.29; all at once: -12.7, 0.24 and -12.3, 0.22"
[ "$seen" = "$expected" ] || exit 1
