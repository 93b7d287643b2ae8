"""Every flag: its check, its default, its row in the docs."""

import dataclasses
import re
from pathlib import Path

import pytest
from helpers import call_main

from support.run.config import FLAGS, Config, as_text, differences, from_plain, parse, to_plain

ROOT = Path(__file__).parent.parent

BAD_FLAGS = [
    *(("--epochs", text) for text in ("0", "-3", "2.5", "ten", "", "1000000001")),
    *(("--batch_size", text) for text in ("0", "-1", "x")),
    *(("--log_interval", text) for text in ("0", "1e3")),
    *(("--latent_dim", text) for text in ("0", "two")),
    *(("--hidden_dims", "400", text) for text in ("0", "-5", "wide")),
    *(("--lr", text) for text in ("nan", "inf", "-inf", "0", "-1e-3", "fast", "1e39")),
    *(("--seed", text) for text in ("-1", "1.5", "9223372036854775808")),
    *(("--dataset", "cifar"), ("--dataset", "/no/such/folder"), ("--dataset", "")),
    *(("--device", "tpu"), ("--schedule", "cosine"), ("--precision", "float8"), ("--compile", "yes")),
    *(("--input_dropout", text) for text in ("1", "-0.1", "nan")),
    *(("--prior", "flow"), ("--prior_components", "0"), ("--divergence", "js"), ("--divergence_weight", "-1")),
    *(("--no_such_flag",), ("stray",), ("--epoch", "3"), ("--hidden_dims",), ("--results_dir", "")),
    *(("--resume", "--overwrite"), ("--divergence", "mmd", "--prior", "vamp")),
]


def defaults_table():
    """The rows (flag, default) that the table in docs/usage.md must have, --no_cuda apart."""
    return [(f"--{field.name}", as_text(getattr(Config(), field.name))) for field in FLAGS]


@pytest.mark.parametrize("flags", BAD_FLAGS, ids=" ".join)
def test_bad_flag_is_named_and_ends_with_exit_code_2(tmp_path, monkeypatch, flags):
    monkeypatch.chdir(tmp_path)
    done = call_main(*flags)
    assert done.code == 2
    assert flags[0] in done.err.splitlines()[-1]
    assert done.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["1000000000", "1"])
def test_whole_numbers_reach_their_ends(text):
    assert parse(["--epochs", text]).epochs == int(text)


def test_seeds_reach_their_ends():
    assert parse(["--seed", "0"]).seed == 0
    assert parse(["--seed", str(2**63 - 1)]).seed == 2**63 - 1


def test_no_flags_give_default_config(monkeypatch):
    monkeypatch.delenv("VAE_DATA_DIR", raising=False)
    config = parse([])
    assert config == Config()
    assert config.named == frozenset()
    assert (config.epochs, config.batch_size, config.lr, config.latent_dim) == (10, 128, 1e-3, 2)


def test_flags_are_named_and_accepted_with_hyphens(monkeypatch):
    monkeypatch.delenv("VAE_DATA_DIR", raising=False)
    config = parse(["--batch-size", "32", "--hidden-dims", "30", "20", "--no-cuda", "--resume"])
    assert (config.batch_size, config.hidden_dims, config.device, config.resume) == (32, (30, 20), "cpu", True)
    assert config.named == {"batch_size", "hidden_dims", "device", "resume"}


def test_no_cuda_is_device_cpu():
    assert parse(["--no_cuda"]) == parse(["--device", "cpu"])


def test_help_names_every_flag_with_its_default(monkeypatch):
    monkeypatch.delenv("VAE_DATA_DIR", raising=False)
    done = call_main("--help")
    assert done.code == 0
    options = done.out.split("options:")[1].split("\n  --")
    helps = {f"--{option.split()[0].rstrip(',')}": " ".join(option.split()) for option in options}
    assert helps.keys() >= {"--no_cuda"}
    for name, default in defaults_table():
        assert name[2:].replace("_", "-") in helps[name]
        assert f"(default: {default})" in helps[name] or default == "off"


def test_paths_expand_home_and_variables(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    monkeypatch.setenv("SCRATCH", str(tmp_path / "scratch"))
    config = parse(["--data_dir", "~/data", "--results_dir", "$SCRATCH/run"])
    assert config.data_dir == tmp_path / "home" / "data"
    assert config.results_dir == tmp_path / "scratch" / "run"


def test_dataset_is_a_name_or_a_folder(monkeypatch, tmp_path):
    (tmp_path / "mnist").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PICTURES", str(tmp_path))
    assert parse(["--dataset", "mnist"]).dataset == "mnist"
    assert parse(["--dataset", "kmnist"]).dataset == "kmnist"
    for text in ("./mnist", "$PICTURES/mnist", "../" + tmp_path.name + "/mnist/"):
        assert parse(["--dataset", text]).dataset == str(tmp_path / "mnist")


def test_dataset_that_is_nothing_lists_the_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    for text in ("cifar10", "./gone", str(tmp_path / "gone"), "file"):
        done = call_main("--dataset", text)
        assert done.code == 2
        assert "mnist, binary_mnist, fashion_mnist, kmnist, digits nor a directory" in done.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("images", "results"),
    [("images", "images"), ("images", "images/results"), ("latent", "."), ("reconstruction", ".")],
)
def test_pictures_may_not_lie_among_the_images(tmp_path, monkeypatch, images, results):
    (tmp_path / images).mkdir()
    monkeypatch.chdir(tmp_path)
    done = call_main("--dataset", images, "--results_dir", results)
    assert done.code == 2
    assert "name a --results_dir outside it" in done.err.splitlines()[-1]
    assert list((tmp_path / images).iterdir()) == []


def test_saved_folder_need_not_exist(tmp_path):
    config = Config(dataset=str(tmp_path / "gone"))
    assert from_plain(to_plain(config)) == config


def test_data_dir_comes_from_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("SCRATCH", str(tmp_path))
    monkeypatch.setenv("VAE_DATA_DIR", "$SCRATCH/data")
    assert Config().data_dir == tmp_path / "data"
    assert parse(["--data_dir", "here"]).data_dir == Path("here")
    monkeypatch.setenv("VAE_DATA_DIR", "")
    assert Config().data_dir == Path("data")


UNUSUAL = Config(
    epochs=3,
    lr=1e-30,
    seed=2**63 - 1,
    hidden_dims=(30, 20),
    results_dir=Path("somewhere"),
    prior="vamp",
    divergence_weight=0.1,
    overwrite=True,
)


@pytest.mark.parametrize("config", [Config(), UNUSUAL], ids=["default", "unusual"])
def test_plain_values_give_the_config_back(config):
    assert from_plain(to_plain(config)) == config


def test_flag_newer_than_the_values_has_its_default():
    values = to_plain(Config(seed=7))
    del values["lr"]
    assert from_plain(values) == Config(seed=7)


REFUSED = {
    "unknown flag": lambda values: values.update(warp=9),
    "text for a number": lambda values: values.update(epochs="ten"),
    "zero": lambda values: values.update(batch_size=0),
    "switch for a number": lambda values: values.update(epochs=True),
    "not a number": lambda values: values.update(lr=float("nan")),
    "nothing": lambda values: values.update(seed=None),
    "number for a list": lambda values: values.update(hidden_dims=16),
    "empty list": lambda values: values.update(hidden_dims=[]),
    "list with zero": lambda values: values.update(hidden_dims=[400, 0]),
    "unknown choice": lambda values: values.update(prior="flow"),
    "list for a choice": lambda values: values.update(schedule=[]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_plain_values_of_no_config_are_refused(name):
    values = to_plain(Config())
    REFUSED[name](values)
    with pytest.raises((ValueError, KeyError, TypeError)):
        from_plain(values)


def test_differences_name_flags_that_define_the_run():
    other = dataclasses.replace(Config(), seed=2, hidden_dims=(30, 20), epochs=99, results_dir=Path("there"))
    assert differences(Config(), other) == [("--seed", "1", "2"), ("--hidden_dims", "400", "30 20")]


def test_folders_differ_by_what_they_hold_and_auto_from_nothing():
    here = Config(dataset="/home/me/pets")
    assert differences(Config(dataset="D:\\pets", precision="bfloat16", compile="on"), here) == []
    assert differences(Config(), here) == [("--dataset", "mnist", "/home/me/pets")]


def test_docs_table_equals_config(monkeypatch):
    monkeypatch.delenv("VAE_DATA_DIR", raising=False)
    usage = (ROOT / "docs" / "usage.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(--\w+)` \| (.*?) \| (.*) \|$", usage, re.MULTILINE)
    assert [(name, default) for name, default, _ in rows if name != "--no_cuda"] == defaults_table()
    assert ("--no_cuda", "off") in [(name, default) for name, default, _ in rows]
    meanings = {name: meaning for name, _, meaning in rows}
    for field in FLAGS:
        for choice in getattr(field.metadata["check"], "names", ()):
            assert re.search(rf"\b{choice}\b", meanings[f"--{field.name}"]), f"--{field.name} {choice}"


def test_folders_that_no_system_call_can_resolve_are_refused_in_a_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    assert call_main("--dataset", 300 * "x").code == 2
    done = call_main("--dataset", "digits", "--results_dir", "loop", "--epochs", 1)
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert "name another --results_dir" in done.err
