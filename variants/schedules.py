"""The learning rate over the steps of a run."""

import torch

WARM_UP = 0.1  # the share of a onecycle run in which the learning rate rises


def make_scheduler(config, optimizer, steps):
    """The scheduler of --schedule; onecycle rises from lr / 25 to lr in a tenth of the steps, and falls nearly to 0."""
    if config.schedule == "constant":
        return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    steps = max(steps, 3)  # two up and one down: OneCycleLR divides by the lengths of its phases
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        config.lr,
        steps,
        pct_start=max(WARM_UP, 2 / steps),
        anneal_strategy="linear",
        cycle_momentum=False,
    )
