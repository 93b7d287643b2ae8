#!/usr/bin/env bash
# What is the Pareto k-hat of an encoder that is too narrow, and of one that is too wide?
#
# The guess: ArviZ computes it from the log weights log p(x, z) - log q(z|x): above 0.7 where q is too narrow for
# importance sampling, below 0 where it is wide and the weights are bounded. arviz-stats, its successor, agrees: its
# psislw has the same name and returns the same things, and its pareto_khat has a switch log_weights.
# The behaviour, with arviz 0.23.4 and arviz-stats 0.8.0: the new psislw wants a log likelihood, whose sign it changes,
# and its documentation does not say so ("ary: array-like"). So the two verdicts change places, and the smoothed weights
# are those of 1 / w. pareto_khat with log_weights=True fits the tail of the logs, not of the weights: both encoders
# pass.
# Seen, with p(z|x) = N(0, 1), q = N(0, 0.3) and N(0, 1.5) (standard deviations), and the estimate of E[z^2], which is
# 1: "arviz psislw: k 0.79 and -1.60, z^2 0.42 and 1.01; arviz-stats psislw: k -1.61 and 1.09, z^2 0.05 and 21.51; of
# minus the log weights: k 0.79 and -1.61, z^2 0.42 and 1.01; pareto_khat: k 0.00 and -1.59", in one line.
#
# Exits with 1 if that has changed. Needs Python 3.11 or later.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile arviz==0.23.4 arviz-stats==0.8.0 numpy==2.4.6 scipy==1.17.1

seen=$("$folder/venv/bin/python" - 2> "$folder/log" << 'PYTHON'
import arviz
import numpy as np
from arviz_stats.base import array_stats

draws = {}
for width in (0.3, 1.5):
    z = np.random.default_rng(0).normal(0, width, 20_000)
    draws[width] = z, np.log(width) + 0.5 * (z / width) ** 2 - 0.5 * z**2  # z, and log p(z|x) - log q(z|x)


def of_psislw(psislw, sign=1):
    """k-hat, and the mean of z^2 under the smoothed weights, for the narrow and the wide encoder."""
    found = [(z, *psislw(sign * log_weights)) for z, log_weights in draws.values()]
    means = [np.sum(np.exp(smoothed) * z**2) for z, smoothed, _ in found]
    return "k {:.2f} and {:.2f}, z^2 {:.2f} and {:.2f}".format(*(float(k) for _, _, k in found), *means)


def of_pareto_khat():
    k = [array_stats.pareto_khat(weights, chain_axis=None, log_weights=True) for _, weights in draws.values()]
    return "k {:.2f} and {:.2f}".format(*(float(value) for value in k))


print(
    f"arviz psislw: {of_psislw(arviz.psislw)}; arviz-stats psislw: {of_psislw(array_stats.psislw)}; "
    f"of minus the log weights: {of_psislw(array_stats.psislw, -1)}; pareto_khat: {of_pareto_khat()}"
)
PYTHON
)
echo "$seen"
expected="arviz psislw: k 0.79 and -1.60, z^2 0.42 and 1.01; arviz-stats psislw: k -1.61 and 1.09, z^2 0.05 and 21.51"
expected+="; of minus the log weights: k 0.79 and -1.61, z^2 0.42 and 1.01; pareto_khat: k 0.00 and -1.59"
[ "$seen" = "$expected" ] || exit 1
