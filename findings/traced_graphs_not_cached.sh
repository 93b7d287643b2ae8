#!/usr/bin/env bash
# Is a graph that make_fx has traced kept in inductor's cache, so that the next process need not compile it again?
#
# The guess: yes, by torch._inductor.compile as by torch.compile; fx_graph_cache is on by default.
# The behaviour, with torch 2.14.1 on the CPU: torch._inductor.compile passes the cache by without a word, because a graph
# that was traced so has no shape environment; each process generates the code of all its kernels again.
# torch._inductor.standalone_compile of the same graph, specialised to its inputs, uses the cache.
# Seen, in a second process: "compile: hits 0, bypasses 1" and "standalone_compile: hits 1, bypasses 0".
#
# Exits with 1 if that has changed. Needs Python 3.11 or later, g++, and 6 GB in the temporary folder.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 numpy==2.4.6

cat > "$folder/twice.py" << 'PYTHON'
import sys

import torch
import torch._inductor
from torch._dynamo.utils import counters
from torch.fx.experimental.proxy_tensor import make_fx

x = torch.ones(1000)
with torch.no_grad():
    traced = make_fx(lambda x: (x.sin().exp(),), tracing_mode="fake")(x)
    if sys.argv[1] == "compile":
        torch._inductor.compile(traced, [x])(x)
    else:
        torch._inductor.standalone_compile(traced, [x], dynamic_shapes="from_example_inputs")(x)
seen = counters["inductor"]
print(f"{sys.argv[1]}: hits {seen['fxgraph_cache_hit']}, bypasses {seen['fxgraph_cache_bypass']}")
PYTHON

export TMPDIR="$folder"
for how in compile standalone_compile; do
    "$folder/venv/bin/python" "$folder/twice.py" "$how" > /dev/null
    "$folder/venv/bin/python" "$folder/twice.py" "$how"
done | tee "$folder/seen"
printf '%s\n' "compile: hits 0, bypasses 1" "standalone_compile: hits 1, bypasses 0" | cmp -s - "$folder/seen" || exit 1
