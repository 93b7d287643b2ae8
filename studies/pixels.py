"""What is log p(x) of a grey image? Compares it with its binarisations: python -m studies.pixels [--quick]

The documented run. Its figure for a grey image is a lower bound on the mean log-likelihood of the image's random
binarisations (docs/paper.md); and a Bernoulli decoder is not a continuous Bernoulli (Loaiza-Ganem & Cunningham, 2019).
The answer is in docs/results.md; a first reader can skip this file.
"""

import torch

from inference import gaussians
from studies import common
from support.data.datasets import pixels
from support.latent import likelihood
from variants.binary import BINARY_SEED, binarise

IMAGES = 1000  # test images
QUICK_IMAGES = 20
DRAWS = 10  # binarisations of each
THRESHOLD = 127  # of a uint8 pixel: 1/2
UNUSED = 1e-4  # the probability of ink below which, in all of the latent space that is used, a pixel is never inked
CELLS = 10  # per standard deviation and axis, where the peaks of both posteriors are searched


@torch.no_grad()
def main():
    flags = common.parse(__doc__)
    dataset = common.load_dataset(flags)
    _, model = common.train_run(common.complete(common.DOCUMENTED, flags, ("epochs", "seed")))
    n = QUICK_IMAGES if flags.quick else IMAGES
    images = dataset.test_images[:: len(dataset.test_images) // n][:n]
    rows = [*compare_binarisations(model, images), *compare_continuous_bernoulli(model, images)]
    common.report(flags.results_dir / "pixels.csv", rows)


def compare_binarisations(model, images):
    """Rows of pixels.csv: log p(x) and the bound of grey images (N, 784) uint8, and of what is made binary of them."""
    grey, bound = measure(model, images)
    drawn = [measure(model, binarise(images, BINARY_SEED, 1, draw)) for draw in range(DRAWS)]
    binary, binary_bound = (torch.stack(values) for values in zip(*drawn, strict=True))
    thresholded, _ = measure(model, (images > THRESHOLD).to(torch.uint8) * 255)
    gap = binary.mean(0) - grey  # of each image: E_b KL(p(z|x) || p(z|b))
    return [
        row("log p(x), grey", grey),
        row("E_b log p(b), random binarisations", binary.mean(0)),
        row("their difference", gap),
        row("the largest of one image", gap.amax(0, keepdim=True)),
        row("share of draws below the grey figure", (binary < grey).float().mean(0)),
        row("log p of one draw minus grey", binary[0] - grey),
        row("log p thresholded minus grey", thresholded - grey),
        row("bound of one draw minus grey", binary_bound[0] - bound),
        row("log p(x) minus bound, grey", grey - bound),
        row("log p(b) minus bound, drawn", (binary - binary_bound).mean(0)),
    ]


def measure(model, images):
    """log p(x) by quadrature and the bound, (N,) each, of images (N, 784) uint8."""
    return likelihood.quadrature(model, images), gaussians.encoder_bounds(model, images)


def compare_continuous_bernoulli(model, images):
    """Rows of pixels.csv: what the normaliser of a continuous Bernoulli adds, and where its posteriors are."""
    mu, _ = model.encode(pixels(images))
    at_mu = log_normalisers(model.decode(mu))
    is_unused = (model.decode(mu).sigmoid() < UNUSED).all(0)
    lattice = likelihood.lattice(model, CELLS)
    log_normaliser = torch.cat([log_normalisers(model.decode(z)).sum(1) for z in lattice.z.split(1000)])
    peaks = torch.cat(
        [
            lattice.z[(likelihood.log_joint(model, lattice, chunk) + log_normaliser).argmax(1)]
            for chunk in images.split(gaussians.CHUNK)
        ]
    )
    return [
        row("log normaliser of a continuous Bernoulli at mu", at_mu.sum(1)),
        row("its standard deviation over the images", at_mu.sum(1).std().view(1)),
        row("pixels that are never inked", is_unused.sum().float().view(1)),
        row("their part of the normaliser", at_mu[:, is_unused].sum(1)),
        row("median distance from its posterior's peak to mu", (peaks - mu).norm(dim=1).median().view(1)),
        row(
            "log of the integral of exp(-BCE) over grey images",
            (lattice.log_mass - log_normaliser).logsumexp(0).view(1),
        ),
    ]


def log_normalisers(logits):
    """log C of each pixel, with C s^x (1 - s)^(1 - x) a density of x in [0, 1], s the sigmoid of the logit."""
    safe = torch.where(logits.abs() < 1e-3, 1e-3, logits)  # at 0 it is log 2
    return (safe / torch.tanh(safe / 2)).log()


def row(name, values):
    """A row of pixels.csv: the mean over the images, and its standard error where there are several."""
    values = values.double()
    error = values.std().item() / len(values) ** 0.5 if len(values) > 1 else None
    return {"figure": name, "nats": values.mean().item(), "standard error": error}


if __name__ == "__main__":
    common.run_study(main)
