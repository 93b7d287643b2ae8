"""A search for crashes: whatever comes in, the command ends with an exit code and a line, never with a traceback."""

import itertools
import re
import shutil

import pytest
import torch
from helpers import call_main, equal

import train
from support.data import datasets
from support.errors import UserError
from support.run import checkpoint

hypothesis = pytest.importorskip("hypothesis", reason="needs requirements-dev.txt")
st = hypothesis.strategies

SETTINGS = {
    "deadline": None,
    "derandomize": True,
    "database": None,
    "suppress_health_check": list(hypothesis.HealthCheck),
}
NUMBERS = ("0", "1", "2", "3", "-1", "1e-3", "1e30", "nan", "inf", "1e400", "9" * 30)
WORDS = st.sampled_from([*NUMBERS, "", "x", "cpu", "digits", "--", "é"])
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
    "--compile": st.sampled_from(["auto", "on", "off"]) | WORDS,
    "--input-dropout": st.sampled_from(["0.2", "0.99"]) | WORDS,
    "--prior": st.sampled_from(["normal", "mixture", "vamp"]) | WORDS,
    "--prior_components": st.integers(0, 5).map(str) | WORDS,
    "--divergence": st.sampled_from(["kl", "mmd"]) | WORDS,
    "--divergence-weight": st.sampled_from(["1", "100", "1e39"]) | WORDS,
    "--resume": st.none(),
    "--overwrite": st.none(),
    "--no_cuda": st.none(),
    "--nonsense": st.none() | WORDS,
}
FLAG = st.sampled_from(sorted(VALUES)).flatmap(lambda flag: st.tuples(st.just(flag), VALUES[flag]))
FLAGS = st.lists(FLAG, max_size=4)
IN_NEW_DIRECTORY = st.booleans()  # or in one that earlier command lines have used
MUTATIONS = st.lists(
    st.tuples(st.sampled_from(["set", "cut", "insert"]), st.booleans(), st.floats(0, 1), st.integers(0, 255)),
    min_size=1,
    max_size=4,
)
HEADER = 64  # bytes; half of the mutations hit these


@pytest.mark.slow
def test_random_command_lines_end_with_a_code_and_a_line(small_mnist, tmp_path, monkeypatch):
    search_command_lines(small_mnist, tmp_path, monkeypatch, 100)


@pytest.mark.slow
def test_mutated_idx_files_are_refused_or_still_well_formed(small_mnist, tmp_path):
    search_idx_files(small_mnist, tmp_path, 1000)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["checkpoint.pt", "best.pt"])
def test_mutated_saved_files_are_refused_or_hold_the_same(small_mnist, tmp_path, name):
    search_saved_files(small_mnist, tmp_path, name, 500)


@pytest.mark.long
def test_thousands_of_command_lines_end_with_a_code_and_a_line(small_mnist, tmp_path, monkeypatch):
    search_command_lines(small_mnist, tmp_path, monkeypatch, 2000)


@pytest.mark.long
def test_thousands_of_mutated_idx_files_are_refused_or_still_well_formed(small_mnist, tmp_path):
    search_idx_files(small_mnist, tmp_path, 20_000)


@pytest.mark.long
@pytest.mark.parametrize("name", ["checkpoint.pt", "best.pt"])
def test_thousands_of_mutated_saved_files_are_refused_or_hold_the_same(small_mnist, tmp_path, name):
    search_saved_files(small_mnist, tmp_path, name, 10_000)


def search_command_lines(data_dir, tmp_path, monkeypatch, examples):
    """Run main with random flags, in a directory that others have used or in a new one."""
    monkeypatch.setattr("support.data.download._fetch", lambda *where: "no network")
    # Compiling takes seconds, and nothing of it depends on the command line but the network that is traced.
    monkeypatch.setattr(torch._inductor, "standalone_compile", lambda traced, example, **options: traced)
    codes = {0: 0, 1: 0, 2: 0}
    numbers = itertools.count()

    @hypothesis.settings(max_examples=examples, **SETTINGS)
    @hypothesis.given(FLAGS, IN_NEW_DIRECTORY)
    def search(flags, in_new_directory):
        folder = tmp_path / (f"run {next(numbers)}" if in_new_directory else "used")
        argv = ["--data_dir", data_dir, "--results_dir", folder, "--hidden_dims", 8, "--epochs", 1]
        for flag, value in flags:
            argv += [flag] if value is None else [flag, *value.split(" ")]
        done = call_main(*argv)
        codes[done.code] += 1
        assert done.code == 0 or re.match(r"main.py: error: \S", done.err.splitlines()[-1]), (argv, done.err)
        if in_new_directory:
            shutil.rmtree(folder, ignore_errors=True)

    search()
    assert min(codes.values()) > 0
    print(f"\n{sum(codes.values())} command lines: exit codes {codes}")


def search_idx_files(data_dir, folder, examples):
    """Load a dataset of which one file is mutated."""
    shutil.copytree(data_dir, folder, dirs_exist_ok=True)
    originals = {path: path.read_bytes() for path in sorted((folder / "MNIST" / "raw").iterdir())}
    outcomes = {"refused": 0, "well-formed": 0}

    @hypothesis.settings(max_examples=examples, **SETTINGS)
    @hypothesis.given(st.sampled_from(sorted(originals)), MUTATIONS)
    def search(path, mutations):
        path.write_bytes(mutate(originals[path], mutations))
        try:
            dataset = datasets.load("mnist", folder, download=False)
            assert dataset.train_images.shape == (300, 784)
            assert dataset.test_labels.max() <= 9
            outcomes["well-formed"] += 1
        except UserError as error:
            assert str(path) in str(error)
            outcomes["refused"] += 1
        finally:
            path.write_bytes(originals[path])

    search()
    assert outcomes["refused"] > examples / 2
    print(f"\n{sum(outcomes.values())} mutated IDX files: {outcomes}")


def search_saved_files(data_dir, folder, name, examples):
    """Load a mutated checkpoint.pt or best.pt as the next command would."""
    assert call_main("--data_dir", data_dir, "--results_dir", folder, "--hidden_dims", 4, "--epochs", 1).code == 0
    dataset = datasets.load("mnist", data_dir)
    path = folder / name
    content = path.read_bytes()
    original = checkpoint.read(path)
    outcomes = {"refused": 0, "the same": 0}

    def load():
        if name == "best.pt":
            checkpoint.load_model(path)
        else:
            saved = checkpoint.load(path)
            checkpoint.restore(train.begin(saved.config, dataset), saved)

    @hypothesis.settings(max_examples=examples, **SETTINGS)
    @hypothesis.given(MUTATIONS)
    def search(mutations):
        path.write_bytes(mutate(content, mutations))
        try:
            load()
            assert equal(checkpoint.read(path), original)
            outcomes["the same"] += 1
        except UserError as error:
            assert name in str(error)
            outcomes["refused"] += 1

    search()
    assert outcomes["refused"] > examples / 2
    print(f"\n{sum(outcomes.values())} mutated {name}: {outcomes}")


def mutate(content, mutations):
    """Set a byte, insert one, or cut off the rest, at places in the first 64 bytes or anywhere."""
    content = bytearray(content)
    for kind, in_header, place, value in mutations:
        at = int(place * (HEADER if in_header else len(content)))
        if kind == "cut":
            del content[at:]
        elif kind == "insert":
            content.insert(at, value)
        elif at < len(content):
            content[at] = value
    return bytes(content)
