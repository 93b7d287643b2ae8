#!/usr/bin/env bash
# Can the MNIST files that Datumaro writes be read by what reads MNIST?
#
# The guess: yes. Its format "mnist" writes train-images-idx3-ubyte.gz and the other three under their own names, in
# big-endian numbers, and it reads MNIST's own files.
# The behaviour, with datumaro 1.13.12: where the number of images belongs, the header has the number of pixels. When
# Datumaro reads, it does not look there, so a round trip shows nothing. Others fail, or believe it: python-mnist gives
# 784 times as many images as there are, all but the real ones empty. The pixels and the labels' file are right.
# Seen, 20 images, read with datumaro, idx2numpy 1.2.3 and python-mnist 0.7: "header: 15680 images; labels: 20;
# datumaro: 20 images, equal; idx2numpy: FormatError; python-mnist: 15680 images, 15660 without pixels; with the header
# mended: 20 and 20, equal and equal", in one line.
#
# Exits with 1 if that has changed. Needs Python 3.11 or later.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile datumaro==1.13.12 idx2numpy==1.2.3 python-mnist==0.7 numpy==2.4.6

seen=$(cd "$folder" && "$folder/venv/bin/python" - 2> "$folder/log" << 'PYTHON'
import gzip
from pathlib import Path

import idx2numpy
import numpy as np
from datumaro import Dataset, DatasetItem
from datumaro.components.annotation import Label
from datumaro.components.media import Image
from mnist import MNIST

rng = np.random.default_rng(0)
pixels = rng.integers(0, 256, (20, 28, 28), dtype=np.uint8)
items = [
    DatasetItem(str(i), subset="train", media=Image.from_numpy(image), annotations=[Label(i % 10)])
    for i, image in enumerate(pixels)
]
Dataset.from_iterable(items, categories=[str(digit) for digit in range(10)]).export("out", "mnist", save_media=True)

images = gzip.decompress(Path("out/train-images-idx3-ubyte.gz").read_bytes())
labels = gzip.decompress(Path("out/train-labels-idx1-ubyte.gz").read_bytes())
back = np.stack([item.media.data for item in Dataset.import_from("out", "mnist")])


def equal(found):
    return "equal" if np.array_equal(np.reshape(found, pixels.shape), pixels) else "different"


def of_idx2numpy(content):
    try:
        return idx2numpy.convert_from_string(content)
    except Exception as error:
        return type(error).__name__


def of_python_mnist():
    found, numbers = MNIST("out", gz=True).load_training()
    assert list(numbers) == [i % 10 for i in range(20)]
    return found


given = of_python_mnist()
refused = of_idx2numpy(images)
mended = images[:4] + (20).to_bytes(4, "big") + images[8:]
Path("out/train-images-idx3-ubyte.gz").write_bytes(gzip.compress(mended))
both = of_idx2numpy(mended), of_python_mnist()
print(
    f"header: {int.from_bytes(images[4:8], 'big')} images; labels: {int.from_bytes(labels[4:8], 'big')}; "
    f"datumaro: {len(back)} images, {equal(back)}; idx2numpy: {refused if isinstance(refused, str) else len(refused)}; "
    f"python-mnist: {len(given)} images, {sum(not image for image in given)} without pixels; "
    f"with the header mended: {len(both[0])} and {len(both[1])}, {equal(both[0])} and {equal(both[1])}"
)
PYTHON
)
echo "$seen"
expected="header: 15680 images; labels: 20; datumaro: 20 images, equal; idx2numpy: FormatError"
expected+="; python-mnist: 15680 images, 15660 without pixels; with the header mended: 20 and 20, equal and equal"
[ "$seen" = "$expected" ] || exit 1
