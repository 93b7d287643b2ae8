"""The titles of the pictures. Skip it on a first reading."""

from variants import DIVERGENCES

WIDEST_TITLE = 76  # letters


def headline(run, row, kind="epoch"):
    """A picture's title: dataset, epoch, and the losses on the test set."""
    is_kl = run.config.divergence == "kl"
    weight = run.config.divergence_weight
    if row["test_divergence"]:  # --resume may have changed the weight since
        weight = (row["test_total"] - row["test_bce"]) / row["test_divergence"]
    return titled(
        f"{run.dataset.title}, {kind} {row['epoch']}",
        f"BCE {row['test_bce']:.2f} + {weighted_divergence(run.config, weight)} "
        f"{row['test_divergence']:.{2 if is_kl else 4}f} = {row['test_total']:.2f} "
        f"{'nats ' if is_kl else ''}per test image",
    )


def weighted_divergence(config, weight):
    """What is added to BCE, as pictures call it: KLD, or 10 x MMD."""
    label = DIVERGENCES[config.divergence]
    return label if f"{weight:g}" == "1" else f"{weight:g} x {label}"


def titled(what, text):
    """A picture's title, in two lines if one would be wider than the picture."""
    return f"{what}: {text}" if len(what) + len(text) < WIDEST_TITLE else f"{what}:\n{text}"
