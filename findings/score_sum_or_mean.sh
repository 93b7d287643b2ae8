#!/usr/bin/env bash
# Is score(X) of scikit-learn's density models the mean log-likelihood per sample?
#
# The guess: yes. GaussianMixture, PCA, FactorAnalysis and EmpiricalCovariance say so, and half of the data then scores
# as all of it does.
# The behaviour, with scikit-learn 1.9.1: KernelDensity.score is the sum over the samples. In one cross-validation with a
# GaussianMixture it loses by the factor N, and of two folds that differ in size, the larger one is "worse".
# Seen, all of 1,000 samples of N(0, I) and half of them: "GaussianMixture -2.84 -2.79; PCA -2.84 -2.79; FactorAnalysis
# -2.84 -2.79; EmpiricalCovariance -2.84 -2.79; KernelDensity -2807.04 -1382.88", in one line.
#
# Exits with 1 if that has changed. Needs Python 3.11 or later.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile scikit-learn==1.9.1 numpy==2.4.6 scipy==1.17.1

seen=$("$folder/venv/bin/python" - << 'PYTHON'
import numpy as np
from sklearn.covariance import EmpiricalCovariance
from sklearn.decomposition import PCA, FactorAnalysis
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity

x = np.random.default_rng(0).standard_normal((1000, 2))
models = (GaussianMixture(1), PCA(1), FactorAnalysis(1), EmpiricalCovariance(), KernelDensity(bandwidth=0.3))
print("; ".join(f"{type(m).__name__} {m.fit(x).score(x):.2f} {m.score(x[:500]):.2f}" for m in models))
PYTHON
)
echo "$seen"
same="GaussianMixture -2.84 -2.79; PCA -2.84 -2.79; FactorAnalysis -2.84 -2.79; EmpiricalCovariance -2.84 -2.79"
[ "$seen" = "$same; KernelDensity -2807.04 -1382.88" ] || exit 1
