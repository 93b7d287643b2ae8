"""What flags can ask for beyond the paper: priors, a divergence, a schedule, data. Skip it on a first reading.

A prior is a module with the methods of model.StandardNormal; the Wasserstein auto-encoder is a subclass of VAE.
"""

from model import VAE
from support.errors import UserError
from support.run.config import MMD_NEEDS_NORMAL
from variants.priors import Mixture, VampPrior
from variants.wae import WAE

DIVERGENCES = {"kl": "KLD", "mmd": "MMD"}  # what is added to BCE, as it is printed
BELOW_ZERO = {
    "KLD": "under a learned prior the KLD is estimated from samples, which can be below zero",
    "MMD": "an unbiased estimate of the MMD can be below zero",
}


def build_model(config):
    """The model that a Config names, its weights drawn from torch's default generator."""
    if config.divergence == "mmd":
        return WAE(config.latent_dim, config.hidden_dims, input_dropout=config.input_dropout)
    model = VAE(config.latent_dim, config.hidden_dims, input_dropout=config.input_dropout)
    if config.prior == "mixture":
        model.prior = Mixture(config.latent_dim, config.prior_components)
    elif config.prior == "vamp":
        model.prior = VampPrior(model.encode, model.image_dim, config.prior_components)
    elif config.prior != "normal":
        raise ValueError(f"--prior {config.prior} has no model")
    return model


def check_mmd(config, n_images, n_processes):
    """Raise UserError if an MMD is asked for that cannot be: it compares a whole batch with draws from N(0, I)."""
    if config.divergence != "mmd":
        return
    if config.prior != "normal":  # of a continued run, whose divergence no flag has named
        raise UserError(MMD_NEEDS_NORMAL)
    if n_processes > 1:
        raise UserError("--divergence mmd compares the images of a whole batch: train it in one process")
    if n_images == 1:
        raise UserError("--divergence mmd compares images, and there is a single one to train on: add images")
    if 1 in (config.batch_size, n_images % config.batch_size):
        raise UserError("--divergence mmd compares a batch's images, and one has a single image: change --batch_size")
