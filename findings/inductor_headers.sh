#!/usr/bin/env bash
# Does TORCHINDUCTOR_CACHE_DIR move everything that torch.compile keeps on the disk?
#
# The guess: yes. It is the documented place of inductor's cache.
# The behaviour, with torch 2.14.1 on the CPU: the kernels go there, but the precompiled header, more than 100 MB and a
# third of the time of a first compilation, goes to torchinductor_USER in the temporary directory. So a benchmark with a
# new TORCHINDUCTOR_CACHE_DIR is only half cold, and a temporary directory that is small or read-only is still used.
# Seen: "headers in the cache directory: 0; in the temporary directory: 1".
#
# Exits with 1 if that has changed. Needs Python 3.11 or later, g++, and 6 GB in the temporary folder.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 numpy==2.4.6

mkdir "$folder/tmp" "$folder/cache"
TMPDIR="$folder/tmp" TORCHINDUCTOR_CACHE_DIR="$folder/cache" "$folder/venv/bin/python" - << 'PYTHON'
import torch

torch.compile(lambda x: x.sin().exp())(torch.ones(1000))
PYTHON

count() { find "$1" -name "*.gch" | wc -l; }
seen="headers in the cache directory: $(count "$folder/cache"); in the temporary directory: $(count "$folder/tmp")"
echo "$seen"
[ "$seen" = "headers in the cache directory: 0; in the temporary directory: 1" ] || exit 1
