import csv
import subprocess
import sys

import imageio.v3 as imageio
import pytest
from conftest import ROOT

sys.path.append(str(ROOT / "studies"))

import divergence


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return tmp_path_factory.mktemp("studies")


@pytest.mark.parametrize(
    ("study", "tables", "pictures"),
    [
        ("prior", {"prior.csv": 3}, ["prior.png"]),
        ("divergence", {"divergence.csv": 2, "sliding.csv": 242}, ["divergence.png", "sliding.png"]),
        ("latent_dim", {"latent_dim.csv": 12}, ["latent_dim.png", "latent_dim_samples.png"]),
    ],
)
def test_a_quick_study_writes_its_tables_and_pictures(results, study, tables, pictures):
    command = [sys.executable, ROOT / "studies" / f"{study}.py", "--quick", "--results_dir", results]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    for name, n in tables.items():
        with open(results / "quick" / name, newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == n
        if "log_p" in rows[0]:
            for row in rows:
                assert float(row["log_p"]) < 0 < float(row["knn_accuracy"]) <= 1
            assert sum(line.startswith("| ") for line in done.stdout.splitlines()) == n + 2, "a head, a rule, the rows"
    for name in pictures:
        assert imageio.imread(results / "quick" / name).std() > 5, f"{name} is blank"


def test_a_study_without_its_data_ends_in_a_line(tmp_path):
    command = [sys.executable, ROOT / "studies" / "prior.py", "--data_dir", tmp_path, "--results_dir", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "--data_dir" in done.stderr, done.stderr


def test_what_slides_apart_is_computed_as_known():
    rows = divergence.sliding()
    assert divergence.largest_error(rows) < 1e-3
    far = {row["family"]: row for row in rows if row["shift"] == rows[-1]["shift"]}
    assert far["uniform"]["KL"] == float("inf") and far["gaussian"]["KL"] == pytest.approx(18)
    assert far["uniform"]["TV"] == pytest.approx(1) and far["uniform"]["W1"] == pytest.approx(6)
