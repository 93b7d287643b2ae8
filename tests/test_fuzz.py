"""A search for crashes: whatever comes in, the way out is an exit code and a line, never a traceback, never a hang."""

import contextlib
import io
import re
import shutil
import signal

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_resume import equal

import checkpoint
import data
import main
import train
from errors import UserError

SETTINGS = {"deadline": None, "suppress_health_check": list(HealthCheck), "database": None}
WORDS = st.sampled_from(
    ["", "0", "1", "2", "3", "-1", "1e-3", "1e30", "nan", "inf", "1e400", "x", "cpu", "digits", "--", "é", "9" * 30]
)
VALUES = {
    "--epochs": st.sampled_from(["1", "2"]) | WORDS,
    "--batch_size": st.sampled_from(["7", "64", "1000000000"]) | WORDS,
    "--log-interval": st.sampled_from(["1", "50"]) | WORDS,
    "--seed": st.integers(-2, 2**64).map(str) | WORDS,
    "--lr": st.floats(width=16).map(str) | WORDS,
    "--schedule": st.sampled_from(["constant", "onecycle"]) | WORDS,
    "--latent_dim": st.integers(0, 5).map(str) | WORDS,
    "--hidden-dims": st.lists(st.integers(0, 9).map(str), max_size=3).map(" ".join) | WORDS,
    "--dataset": st.sampled_from(["mnist", "fashion_mnist"]) | WORDS,
    "--precision": st.sampled_from(["auto", "float32", "bfloat16"]) | WORDS,
    "--device": st.sampled_from(["auto", "cpu"]) | WORDS,
    "--prior": st.sampled_from(["normal", "mixture", "vamp"]) | WORDS,
    "--prior_components": st.integers(0, 5).map(str) | WORDS,
    "--divergence": st.sampled_from(["kl", "mmd"]) | WORDS,
    "--divergence-weight": st.sampled_from(["1", "100", "1e39"]) | WORDS,
    "--resume": st.just(None),
    "--overwrite": st.just(None),
    "--no_cuda": st.just(None),
    "--nonsense": st.none() | WORDS,
}
FLAGS = st.lists(
    st.sampled_from(sorted(VALUES)).flatmap(lambda flag: VALUES[flag].map(lambda value: (flag, value))), max_size=4
)


@pytest.fixture
def handlers():
    kept = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
    yield
    for signum, handler in kept.items():
        signal.signal(signum, handler)


def search_flags(small_mnist, folder, examples):
    """Run main on so many random command lines, all in one results directory, so that runs meet what others left."""
    codes = {0: 0, 1: 0, 2: 0}

    @settings(max_examples=examples, **SETTINGS)
    @given(FLAGS)
    def search(flags):
        argv = ["--data_dir", str(small_mnist), "--results_dir", str(folder), "--hidden_dims", "8", "--epochs", "1"]
        for flag, value in flags:
            argv += [flag, *(value.split(" ") if value is not None else ())]
        with contextlib.redirect_stderr(io.StringIO()) as errors:
            try:
                code = main.main(argv)
            except SystemExit as ended:
                code = ended.code
        codes[code] += 1
        lines = errors.getvalue().splitlines()
        assert code == 0 or re.match(r"\S+: error: \S", lines[-1]), (argv, lines)
        assert "Traceback" not in errors.getvalue()

    search()
    print(f"\n{examples} command lines: exit codes {codes}")


MUTATIONS = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 255), st.sampled_from(["set", "cut", "insert"])), min_size=1, max_size=4
)


def mutated(content, mutations):
    """Some bytes set, inserted, or all after them cut off; half of these places lie in the first 64, the header."""
    content = bytearray(content)
    for place, value, kind in mutations:
        at = int(place * 128) if place < 0.5 else int((place - 0.5) * 2 * len(content))
        if kind == "cut":
            del content[at:]
        elif kind == "insert":
            content.insert(at, value)
        elif at < len(content):
            content[at] = value
    return bytes(content)


def search_idx(small_mnist, folder, examples):
    shutil.copytree(small_mnist, folder, dirs_exist_ok=True)
    paths = sorted((folder / "MNIST" / "raw").iterdir())
    contents = [path.read_bytes() for path in paths]
    refused = 0

    @settings(max_examples=examples, **SETTINGS)
    @given(st.sampled_from(range(4)), MUTATIONS)
    def search(which, mutations):
        nonlocal refused
        paths[which].write_bytes(mutated(contents[which], mutations))
        try:
            dataset = data.load("mnist", folder)
            assert dataset.train_images.shape == (300, 784) and dataset.test_labels.max() <= 9
        except UserError as error:
            assert str(paths[which]) in str(error)
            refused += 1
        finally:
            paths[which].write_bytes(contents[which])

    search()
    assert refused > examples / 2
    print(f"\n{examples} mutated IDX files: {refused} refused, the others still of the right form")


def search_checkpoint(small_mnist, folder, examples):
    argv = ["--data_dir", str(small_mnist), "--results_dir", str(folder), "--hidden_dims", "4", "--epochs", "1"]
    assert main.main(argv) == 0
    path = folder / "checkpoint.pt"
    content, original, refused = path.read_bytes(), checkpoint.read(path), 0

    @settings(max_examples=examples, **SETTINGS)
    @given(MUTATIONS)
    def search(mutations):
        nonlocal refused
        path.write_bytes(mutated(content, mutations))
        try:
            saved = checkpoint.resumable(folder, {})
            train.build(saved["config"], torch.device("cpu"), saved)
            assert equal(saved, original)
        except UserError as error:
            assert "checkpoint.pt" in str(error)
            refused += 1

    search()
    assert refused > examples / 2
    print(f"\n{examples} mutated checkpoints: {refused} refused, the others held the very same")


def test_random_flags(small_mnist, tmp_path, handlers):
    search_flags(small_mnist, tmp_path / "results", 100)


def test_mutated_idx_files(small_mnist, tmp_path):
    search_idx(small_mnist, tmp_path, 1000)


def test_mutated_checkpoints(small_mnist, tmp_path, handlers):
    search_checkpoint(small_mnist, tmp_path, 1000)


@pytest.mark.long
def test_more_of_all(small_mnist, tmp_path, handlers):
    search_flags(small_mnist, tmp_path / "flags", 2000)
    search_idx(small_mnist, tmp_path / "data", 20_000)
    search_checkpoint(small_mnist, tmp_path / "checkpoint", 20_000)
