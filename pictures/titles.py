"""The titles of the pictures. Skip it on a first reading."""

from support.run.report import DIVERGENCES

WIDEST_TITLE = 76  # letters


def headline(run, row, kind="epoch"):
    """A picture's title: dataset, epoch, and the losses on the test set."""
    is_kl = run.config.divergence == "kl"
    return titled(
        f"{run.dataset.title}, {kind} {row['epoch']}",
        f"BCE {row['test_bce']:.2f} + {weighted_divergence(run.config)} "
        f"{row['test_divergence']:.{2 if is_kl else 4}f} = {row['test_total']:.2f} "
        f"{'nats ' if is_kl else ''}per test image",
    )


def weighted_divergence(config):
    """What is added to BCE, as pictures call it: KLD, or 10 x MMD."""
    label = DIVERGENCES[config.divergence]
    return label if config.divergence_weight == 1 else f"{config.divergence_weight:g} x {label}"


def titled(what, text):
    """A picture's title, in two lines if one would be wider than the picture."""
    return f"{what}: {text}" if len(what) + len(text) < WIDEST_TITLE else f"{what}:\n{text}"
