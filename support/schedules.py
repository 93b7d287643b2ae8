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


def check_parts(run):
    """Raise ValueError if a part of a run was replaced, but not the others that work on it: it would not be trained."""
    trained = {id(parameter) for group in run.optimizer.param_groups for parameter in group["params"]}
    if not trained >= {id(parameter) for parameter in run.model.parameters() if parameter.requires_grad}:
        raise ValueError(
            "the optimizer lacks parameters of the model: give the run an optimizer of run.model.parameters()"
        )
    if run.scheduler.optimizer is not run.optimizer:
        raise ValueError("the scheduler is that of another optimizer: give the run a scheduler of run.optimizer")
