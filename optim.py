"""Adam, and what its learning rate does over a run."""

import torch


class Adam:
    """Adam (Kingma & Ba, 2014) over a network's parameters, in PyTorch's one fused kernel.

    It is torch.optim.Adam(fused=True) bit for bit. The Optimizer around it would cost a tenth of a training step on a
    CPU, and import PyTorch's compiler: over a second, and 160 MB.

    Args:
        parameters: those of a network, on one device.
        lr: the learning rate; `lr` may be set between steps.
        betas: decay rates of the first and second moments.
    """

    def __init__(self, parameters, lr, betas=(0.9, 0.999)):
        self.parameters, self.betas = list(parameters), betas
        self.first, self.second = ([torch.zeros_like(p) for p in self.parameters] for _ in range(2))
        self.steps = torch.zeros((), device=self.parameters[0].device)
        # A replayed CUDA graph reads the learning rate from memory: it must be a tensor to follow a schedule.
        self._lr = torch.zeros_like(self.steps) if self.steps.is_cuda else 0.0
        self.lr = lr

    @property
    def lr(self):
        return self._lr

    @lr.setter
    def lr(self, lr):
        if isinstance(self._lr, torch.Tensor):
            self._lr.fill_(lr)
        else:
            self._lr = lr

    def zero_grad(self):
        """Forget the gradients."""
        for p in self.parameters:
            p.grad = None

    @torch.no_grad()
    def step(self):
        """Update the parameters by their gradients."""
        self.steps.add_(1)
        torch._fused_adam_(
            self.parameters,
            [p.grad for p in self.parameters],
            self.first,
            self.second,
            [],
            [self.steps] * len(self.parameters),
            lr=self._lr,
            beta1=self.betas[0],
            beta2=self.betas[1],
            weight_decay=0,
            eps=1e-8,
            amsgrad=False,
            maximize=False,
        )

    @property
    def state(self):
        """All that must be saved: the number of steps, and each parameter's moments."""
        return {"steps": self.steps, "first": self.first, "second": self.second}

    def load(self, state):
        """Go on from what `state` was. Raises KeyError, TypeError, AttributeError or ValueError if it does not fit."""
        saved = [state["steps"], *state["first"], *state["second"]]
        for mine, theirs in zip([self.steps, *self.first, *self.second], saved, strict=True):
            if mine.shape != theirs.shape:
                raise ValueError("a moment has another shape than its parameter")
            mine.copy_(theirs)


def constant(lr, step, steps):
    """The learning rate lr, whatever the step."""
    return lr


def one_cycle(lr, step, steps):
    """The learning rate of a step, counted from 0, of so many: up to lr over a tenth of them, then down to nothing.

    It is that of torch.optim.lr_scheduler.OneCycleLR with linear phases (Smith & Topin, 2017).
    """
    step = min(step, steps - 1)  # the one after the last is asked for, though not taken
    steps = max(steps, 3)  # two up and one down, or there is nothing to divide by
    peak = max(0.1 * steps, 2) - 1
    if step <= peak:
        start, end, done = lr / 25, lr, step / peak
    else:
        start, end, done = lr, lr / 25 / 1e4, (step - peak) / (steps - 1 - peak)
    return (end - start) * done + start


SCHEDULES = {"constant": constant, "onecycle": one_cycle}
