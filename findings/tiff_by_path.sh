#!/usr/bin/env bash
# Does it matter whether a scan is opened by its path or as a file object?
#
# The guess: no. Pillow reads the same bytes, and turns an image whose TIFF tag says that it lies on its side.
# The behaviour, with pillow 13.0.0: an uncompressed grey TIFF that is opened by its path is mapped into memory with the
# width and height that it has once it is turned. The lines are cut at the wrong places, then all of it is turned, so the
# array has the shape of the file and hardly a pixel in its place. From a file object, and compressed or in colour, it is
# right.
# Seen, for 20 lines of 40 pixels with orientation 6: "by path: 20 x 40, 1.00 of the pixels wrong; as a file object: 40 x
# 20, none; compressed: 40 x 20, none; in colour: 40 x 20, none", in one line.
#
# Exits with 1 if that has changed. Needs Python 3.11 or later.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile pillow==13.0.0 numpy==2.4.6

cd "$folder"
seen=$("$folder/venv/bin/python" - << 'PYTHON'
import io
from pathlib import Path

import numpy as np
from PIL import Image

values = np.random.default_rng(0).integers(0, 256, (20, 40), np.uint8)
scan = Image.fromarray(values)
turned = np.rot90(values, -1)
tags = {"tiffinfo": {0x0112: 6}}
scan.save("plain.tif", **tags)
scan.save("packed.tif", compression="tiff_lzw", **tags)
scan.convert("RGB").save("colour.tif", **tags)


def look(source):
    """The shape of a scan, and which share of its pixels is wrong."""
    with Image.open(source) as image:
        image.load()
        pixels = np.asarray(image.convert("L"))
    wrong = (pixels.ravel() != turned.ravel()).mean()
    return f"{pixels.shape[0]} x {pixels.shape[1]}, " + (f"{wrong:.2f} of the pixels wrong" if wrong else "none")


print(
    f"by path: {look('plain.tif')}; as a file object: {look(io.BytesIO(Path('plain.tif').read_bytes()))}; "
    f"compressed: {look('packed.tif')}; in colour: {look('colour.tif')}"
)
PYTHON
)
echo "$seen"
expected="by path: 20 x 40, 1.00 of the pixels wrong; as a file object: 40 x 20, none"
[ "$seen" = "$expected; compressed: 40 x 20, none; in colour: 40 x 20, none" ] || exit 1
