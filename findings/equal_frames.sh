#!/usr/bin/env bash
# Does a film of six frames have six frames when it is read back?
#
# The guess: yes, in a format without loss, whatever is on the frames: latent spaces that have stopped moving, too.
# The behaviour, with pillow 13.0.0 and imageio 2.38.1: equal neighbours become one frame with their durations added, in
# GIF, in animated PNG and in lossless WebP, through both libraries. Played, the film looks the same. Read as an array,
# it has other frames than were written: frame i is no longer epoch i, and a film that stands still is a still picture.
# Seen: "GIF 3 frames, [300, 200, 100] ms; PNG 3 frames, [300.0, 200.0, 100.0] ms; WEBP 3 frames; imageio 3 of 6".
#
# Exits with 1 if that has changed. Needs Python 3.11 or later.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile pillow==13.0.0 imageio==2.38.1 numpy==2.4.6

seen=$("$folder/venv/bin/python" - << 'PYTHON'
import io

import imageio.v3 as imageio
import numpy as np
from PIL import Image

frames = np.zeros((6, 16, 16), np.uint8) + np.array([0, 0, 0, 90, 90, 200], np.uint8)[:, None, None]
pictures = [Image.fromarray(frame) for frame in frames]
found = []
for name, settings in (("GIF", {}), ("PNG", {}), ("WEBP", {"lossless": True})):
    file = io.BytesIO()
    pictures[0].save(file, name, save_all=True, append_images=pictures[1:], duration=100, **settings)
    film = Image.open(file)
    durations = []
    for i in range(film.n_frames):
        film.seek(i)
        film.load()
        durations.append(film.info.get("duration"))
    found.append(f"{name} {film.n_frames} frames" + (f", {durations} ms" if name != "WEBP" else ""))
content = imageio.imwrite("<bytes>", frames, extension=".gif", duration=100)
found.append(f"imageio {len(imageio.imread(content, extension='.gif', index=None))} of {len(frames)}")
print("; ".join(found))
PYTHON
)
echo "$seen"
[ "$seen" = "GIF 3 frames, [300, 200, 100] ms; PNG 3 frames, [300.0, 200.0, 100.0] ms; WEBP 3 frames; imageio 3 of 6" ] || exit 1
