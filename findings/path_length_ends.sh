#!/usr/bin/env bash
# Where between two draws does torchmetrics measure the perceptual path length of a decoder?
#
# The guess: anywhere. Its formula has pictures of the points t and t + epsilon between two draws of z, "t is a parameter
# between 0 and 1", as in StyleGAN, which draws a t for each pair.
# The behaviour, with torchmetrics 1.9.0: there is no t. Every step starts from a draw, t = 0, the variant that StyleGAN
# calls "end". A decoder that is steep only between the draws, as where digits change into others, looks smooth.
# Seen, for a hundred latents, and beside it the same with a uniform t: "smooth: 2.0 and 2.0; steep between draws: 0.1
# and 32.8", in one line.
#
# Exits with 1 if that has changed. Needs Python 3.11 or later, and 6 GB in the temporary folder.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile torchmetrics==1.9.0 torch==2.14.1 torchvision==0.29.1 numpy==2.4.6

seen=$("$folder/venv/bin/python" - 2> "$folder/log" << 'PYTHON'
import torch
from torchmetrics.functional.image import perceptual_path_length


class Decoder(torch.nn.Module):
    """A decoder to one grey pixel from 0 to 255, and the prior of its latents."""

    def __init__(self, pixel):
        super().__init__()
        self.pixel = pixel

    def sample(self, size):
        return torch.randn(size, 100, dtype=torch.float64)

    def forward(self, z):
        return 127.5 * (1 + self.pixel(z)).reshape(-1, 1, 1, 1)


class Square(torch.nn.Module):
    """The squared distance of two pictures of values from -1 to 1."""

    def forward(self, picture, other):
        return (picture - other).square().flatten(1).sum(1)


def lengths(pixel, epsilon=1e-4):
    """The path length of torchmetrics, and that of a uniform t."""
    torch.manual_seed(0)
    decoder, options = Decoder(pixel), {"lower_discard": None, "upper_discard": None, "resize": None}
    mean, _, _ = perceptual_path_length(decoder, 20_000, sim_net=Square(), epsilon=epsilon, batch_size=2000, **options)
    z1, z2, t = decoder.sample(20_000), decoder.sample(20_000), torch.rand(20_000, 1, dtype=torch.float64)
    pictures = [decoder(torch.lerp(z1, z2, place)) / 127.5 - 1 for place in (t, t + epsilon)]
    return "{:.1f} and {:.1f}".format(mean.item(), Square()(*pictures).mean().item() / epsilon**2)


print(
    f"smooth: {lengths(lambda z: z[:, 0])}; "
    f"steep between draws: {lengths(lambda z: torch.tanh(20 * (z.square().mean(1) - 0.55)))}"
)
PYTHON
)
echo "$seen"
[ "$seen" = "smooth: 2.0 and 2.0; steep between draws: 0.1 and 32.8" ] || exit 1
