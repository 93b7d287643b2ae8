#!/usr/bin/env bash
# Are the bits of a training run on the CPU the same in PyTorch 2.8.0 and in 2.15.0?
#
# The guess: no. PyTorch promises the same results only for the same release (its notes on reproducibility).
#
# The behaviour, with torch 2.8.0 and numpy 1.26.4 against torch 2.15.0 and numpy 2.4.6, on x86-64 with AVX-512:
#   the same    randn, randperm, dropout, NumPy's SeedSequence and PCG64;
#               the weights of a network of linear layers after an epoch of eager training (fused Adam, binary
#               cross-entropy), in float32 and under bfloat16 autocast, with one thread and with two
#   not the same    the weights with ATEN_CPU_CAPABILITY=default, which also changes randn
# Seen: "float32 1 thread  2fc58b620bfe  2fc58b620bfe  same", and so on; the weights' checksums depend on the CPU.
#
# Exit code 0 if all of that still holds, else 1. Needs Python 3.11 or 3.12 and 12 GB in the temporary folder.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

cat > "$folder/train.py" <<'PYTHON'
"""Print a checksum: of random draws, or of the weights of 784-400-2 after an epoch on random images."""
import hashlib
import sys

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

what, threads = sys.argv[1], int(sys.argv[2])
torch.set_num_threads(threads)


def checksum(*tensors):
    return hashlib.sha256(b"".join(tensor.detach().numpy().tobytes() for tensor in tensors)).hexdigest()[:12]


def loss_of(x, eps):
    x = x.float() / 255
    with torch.autocast("cpu", torch.bfloat16, enabled=what == "bfloat16"):
        mu, logvar = encoder(x).float().chunk(2, -1)
        logits = decoder(mu + torch.exp(0.5 * logvar) * eps)
    bce = F.binary_cross_entropy_with_logits(logits.float(), x, reduction="none").sum(-1)
    kld = 0.5 * (mu.square() + logvar.exp() - 1 - logvar).sum(-1)
    return (bce + kld).mean()


source = torch.Generator().manual_seed(1)
torch.manual_seed(1)
if what == "randn":
    print(checksum(torch.randn(100_003, generator=source)))
elif what == "randperm":
    print(checksum(torch.randperm(60_000, generator=source)))
elif what == "dropout":
    print(checksum(F.dropout(torch.ones(100, 784), 0.2)))
elif what == "numpy":
    words = np.random.PCG64((1, 2)).random_raw(1000)
    print(checksum(torch.from_numpy(np.append(np.random.SeedSequence((1, 2)).generate_state(4, np.uint64), words).view(np.int64))))
else:
    images = torch.randint(256, (12_800, 784), generator=source, dtype=torch.uint8)
    encoder = nn.Sequential(nn.Linear(784, 400), nn.ReLU(), nn.Linear(400, 4))
    decoder = nn.Sequential(nn.Linear(2, 400), nn.ReLU(), nn.Linear(400, 784))
    weights = [*encoder.parameters(), *decoder.parameters()]
    optimizer = torch.optim.Adam(weights, 1e-3, fused=True)
    noise = torch.randn(len(images), 2, generator=source)
    for x, eps in zip(images.split(128), noise.split(128)):
        optimizer.zero_grad()
        loss_of(x, eps).backward()
        optimizer.step()
    print(checksum(*weights))
PYTHON

install() {
    python3 -m venv "$folder/$1"
    "$folder/$1/bin/pip" install --quiet --no-cache-dir "torch==$1" "numpy==$2"
}
install 2.8.0 1.26.4
install 2.15.0 2.4.6

changed=0
compare() {  # NAME, EXPECTED (same or other), then the program's arguments
    name=$1 expected=$2
    shift 2
    old=$("$folder/2.8.0/bin/python" "$folder/train.py" "$@" 2>/dev/null)
    new=$("$folder/2.15.0/bin/python" "$folder/train.py" "$@" 2>/dev/null)
    found=other
    [ "$old" = "$new" ] && found=same
    printf '%-22s %s  %s  %s\n' "$name" "$old" "$new" "$found"
    [ "$found" = "$expected" ] || changed=1
}
for draws in randn randperm dropout numpy; do compare "$draws" same "$draws" 1; done
for threads in 1 2; do
    compare "float32, $threads thread(s)" same float32 "$threads"
    compare "bfloat16, $threads thread(s)" same bfloat16 "$threads"
done

python="$folder/2.15.0/bin/python"
for what in randn float32; do
    usual=$("$python" "$folder/train.py" "$what" 1)
    plain=$(ATEN_CPU_CAPABILITY=default "$python" "$folder/train.py" "$what" 1)
    printf '%-22s %s  %s\n' "$what, capability" "$usual" "$plain"
    [ "$usual" != "$plain" ] || changed=1
done
[ "$changed" = 0 ] || exit 1
