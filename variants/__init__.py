"""What flags can ask for beyond the paper: priors, a divergence, a schedule, data. Skip it on a first reading.

A prior is a module with the methods of model.StandardNormal; the Wasserstein auto-encoder is a subclass of VAE.
"""

from model import VAE
from support.errors import UserError
from variants.priors import Mixture, VampPrior
from variants.wae import WAE


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


def check_batches(config, n_images, n_processes):
    """Raise UserError if some batch of n_images has no MMD: it compares the images of a whole batch."""
    if config.divergence != "mmd":
        return
    if n_processes > 1:
        raise UserError("--divergence mmd compares the images of a whole batch: train it in one process")
    if 1 in (config.batch_size, n_images % config.batch_size):
        raise UserError("--divergence mmd compares a batch's images, and one has a single image: change --batch_size")
