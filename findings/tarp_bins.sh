#!/usr/bin/env bash
# Does sbi's TARP test notice that an encoder's q(z|x) is half as wide as the posterior?
#
# The guess: yes. With 2,000 pairs of z and x, and 500 draws of q each, the p-value of check_tarp is 0, however many bins
# run_tarp makes of the coverages; and the area to the curve grows with the width of q.
# The behaviour, with sbi 0.27.0: the Kolmogorov-Smirnov test takes the points of the curve, one per bin, for the sample,
# so the p-value tells how many bins there are: with 20, the narrow q passes. And the bins end at the largest coverage
# seen, so the upper half of them, over which the area is taken, is another one for a wide q: beyond ten times the
# posterior's width the area shrinks again.
# Seen, for the posterior's width times 0.5, 1, 10 and 100, the p-value with the default of 200 bins and with 20, and the
# area: "0.5: 0.00, 0.85, -0.06; 1: 1.00, 1.00, 0.00; 10: 0.00, 0.00, 0.14; 100: 0.00, 0.00, 0.04", in one line.
#
# Exits with 1 if that has changed. Needs Python 3.11 or later, and 7 GB in the temporary folder.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile sbi==0.27.0 torch==2.14.1 numpy==2.4.6 scipy==1.17.1

seen=$("$folder/venv/bin/python" - 2> "$folder/log" << 'PYTHON'
import torch
from sbi.diagnostics import check_tarp, run_tarp


class Encoder:
    """Draws of q(z|x) where z ~ N(0, 1) and x ~ N(z, 1), so that p(z|x) = N(x / 2, 1 / 2)."""

    def __init__(self, width):
        self.width = width

    def sample_batched(self, shape, x, show_progress_bars):
        return x / 2 + self.width * 0.5**0.5 * torch.randn(*shape, *x.shape)


def check(width, bins):
    torch.manual_seed(0)
    z = torch.randn(2000, 1)
    x = z + torch.randn(2000, 1)
    return check_tarp(*run_tarp(z, x, Encoder(width), num_posterior_samples=500, num_bins=bins))


lines = []
for width in (0.5, 1, 10, 100):
    area, p = check(width, None)
    lines.append(f"{width}: {p:.2f}, {check(width, 20)[1]:.2f}, {area + 0.0:.2f}")
print("; ".join(lines))
PYTHON
)
echo "$seen"
[ "$seen" = "0.5: 0.00, 0.85, -0.06; 1: 1.00, 1.00, 0.00; 10: 0.00, 0.00, 0.14; 100: 0.00, 0.00, 0.04" ] || exit 1
