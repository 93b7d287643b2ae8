#!/usr/bin/env bash
# How grey is a red pixel of a PNG file?
#
# The guess: 76 of 255, for red's weight is 0.299: in Pillow, OpenCV, TensorFlow and Keras, and it makes no difference
# whether the file is read as grey or is read in colours and then made grey.
# The behaviour, with tensorflow-cpu 2.21.0, keras 3.15.1, opencv-python-headless 4.14.0.94 and pillow 13.0.0: it
# depends on the file's chunk gAMA. TensorFlow (channels=1) and OpenCV (IMREAD_GRAYSCALE) let libpng make it grey. Where
# the file tells its gamma, libpng weights the light, not the values: 255 * 0.299^(1 / 2.2) is 147. Pillow ignores the
# chunk. So Keras disagrees with itself: load_img is Pillow's, a folder (color_mode="grayscale") is TensorFlow's.
# Seen, red without gAMA and with it, then blue: "Pillow 76 76, 29 29; load_img 76 76, 29 29; folder 76 147, 29 95;
# decode_png 76 147, 29 95; two steps 76 76, 29 29; imread 76 147, 29 95; two steps 76 76, 29 29", in one line.
#
# Exits with 1 if that has changed. Needs Python 3.11 or later.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile tensorflow-cpu==2.21.0 keras==3.15.1 \
    opencv-python-headless==4.14.0.94 pillow==13.0.0 numpy==2.4.6

seen=$(cd "$folder" && "$folder/venv/bin/python" - 2> "$folder/log" << 'PYTHON'
from pathlib import Path

import cv2
import keras
import numpy as np
import tensorflow as tf
from PIL import Image, PngImagePlugin


def write(name, colour, chunks):
    info = PngImagePlugin.PngInfo()
    for kind, content in chunks.items():
        info.add(kind, content)
    path = Path(name) / "picture.png"
    path.parent.mkdir()
    Image.new("RGB", (28, 28), colour).save(path, pnginfo=info)
    return str(path)


def greys(path):
    """The first pixel's grey: Pillow, both of Keras, TensorFlow in one and in two steps, OpenCV in one and in two."""
    options = dict(labels=None, color_mode="grayscale", image_size=(28, 28), batch_size=1, verbose=False)
    folder = keras.utils.image_dataset_from_directory(str(Path(path).parent), **options)
    content = tf.io.read_file(path)
    found = (
        np.asarray(Image.open(path).convert("L")),
        keras.utils.img_to_array(keras.utils.load_img(path, color_mode="grayscale")),
        next(iter(folder)).numpy()[0],
        tf.io.decode_png(content, channels=1).numpy(),
        tf.image.rgb_to_grayscale(tf.io.decode_png(content, channels=3)).numpy(),
        cv2.imread(path, cv2.IMREAD_GRAYSCALE),
        cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2GRAY),
    )
    return [round(float(image[0, 0].item())) for image in found]


names = "Pillow", "load_img", "folder", "decode_png", "two steps", "imread", "two steps"
gamma = (45455).to_bytes(4, "big")  # 1 / 2.2
files = [
    write(f"{colour}{len(chunks)}", colour, chunks)
    for colour in ((255, 0, 0), (0, 0, 255))
    for chunks in ({}, {b"gAMA": gamma})
]
columns = zip(names, *(greys(path) for path in files))
print("; ".join(f"{name} {red} {red_gamma}, {blue} {blue_gamma}" for name, red, red_gamma, blue, blue_gamma in columns))
PYTHON
)
echo "$seen"
expected="Pillow 76 76, 29 29; load_img 76 76, 29 29; folder 76 147, 29 95; decode_png 76 147, 29 95"
expected+="; two steps 76 76, 29 29; imread 76 147, 29 95; two steps 76 76, 29 29"
[ "$seen" = "$expected" ] || exit 1
