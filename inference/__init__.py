"""Slow and sure ways to a model's posterior p(z|x) and its log p(x), for studies. Skip it on a first reading.

`hmc` draws from p(z|x), `annealing` estimates log p(x) with many latents, `lattice` sums over few, and `gaussians`
finds the best Gaussian. `gaussian_vae` is a model of real-valued pixels.
"""
