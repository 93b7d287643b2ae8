"""Which latents are in use."""

ACTIVE = 0.01  # the variance above which Burda et al. (2016) call a latent active


def active_units(mu):
    """How many latents are in use: those whose mean, mu (N, latent_dim), varies over the images by more than 0.01."""
    return int((mu.var(0, correction=0) > ACTIVE).sum())
