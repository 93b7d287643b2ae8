"""Studies and benchmarks as commands: their tables, pictures and errors."""

import csv
import subprocess
import sys

import imageio.v3 as imageio
import pytest
from processes import ROOT, without_network

from studies import divergence

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("study", "tables", "pictures"),
    [
        ("prior", {"prior.csv": 3}, ["prior.png"]),
        ("divergence", {"divergence.csv": 2, "sliding.csv": 242}, ["divergence.png", "sliding.png"]),
        ("latent_dim", {"latent_dim.csv": 12}, ["latent_dim.png", "latent_dim_samples.png"]),
        ("gap", {"gap.csv": 4, "gap_dropout.csv": 6}, ["gap.png", "gap_digits.png"]),
        ("published", {"published.csv": 22}, []),
        ("paper", {"paper.csv": 36}, ["paper.png"]),
        (
            "paper --dataset frey_face",
            {"paper_frey_face.csv": 72},
            ["paper_frey_face.png", "paper_frey_face_samples.png"],
        ),
        ("marginal", {"marginal.csv": 12, "appendix_d.csv": 8}, ["marginal.png", "appendix_d.png"]),
    ],
)
def test_quick_study_writes_its_tables_and_pictures(tmp_path, study, tables, pictures):
    done = run_study(*study.split(), "--quick", "--results_dir", tmp_path)
    assert done.returncode == 0, done.stderr
    for name, n in tables.items():
        with open(tmp_path / "quick" / name, newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == n
        if "log_p" in rows[0]:
            assert all(float(row["log_p"]) < 0 for row in rows)
            assert all(0 < float(row.get("knn_accuracy", 1)) <= 1 for row in rows)
            # By quadrature, with one or two latents, there are no samples; published networks have 40 and more.
            default = "40" if study == "published" else "2"
            sampled = [row for row in rows if "ess" in row]
            assert all((row["ess"] == "") == (row.get("latent_dim", default) in "12") for row in sampled)
            printed = [line for line in done.stdout.splitlines() if line.startswith("| ")]
            assert len(printed) >= n + 2, "a head, a rule, and the rows"
    for name in pictures:
        assert imageio.imread(tmp_path / "quick" / name).std() > 5, f"{name} is blank"


def test_study_without_its_data_ends_with_a_line(tmp_path):
    flags = ("--data_dir", tmp_path / "nothing", "--results_dir", tmp_path / "studies")
    done = run_study("prior", *flags, env=without_network())
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "--data_dir" in done.stderr


def test_help_of_a_study_ends_with_its_flags():
    done = run_study("prior", "--help")
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1].split()[0] == "--overwrite"


@pytest.mark.parametrize(
    ("benchmark", "flags", "message"),
    [
        ("speed", ["--data_dir", "nothing"], "train-images-idx3-ubyte is not in nothing"),
        ("speedrun", ["--data_dir", "nothing"], "train-images-idx3-ubyte is not in nothing"),
        ("peers", ["--folder", "file"], "file: File exists"),
        ("page", ["file"], "file is no explorer.html"),
        ("page", ["nothing"], "nothing: No such file or directory"),
    ],
)
def test_benchmark_that_cannot_go_on_says_why_in_a_line(tmp_path, benchmark, flags, message):
    (tmp_path / "file").write_text("")
    command = [sys.executable, "-m", f"benchmarks.{benchmark}", *flags]
    variables = {**without_network(), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=600)
    (line,) = done.stderr.splitlines()
    assert (done.returncode, line.partition(": error: ")[0]) == (1, f"{benchmark}.py")
    assert message in line


def test_study_of_frey_face_without_it_says_where_it_comes_from(tmp_path):
    flags = ("--data_dir", tmp_path / "nothing", "--results_dir", tmp_path / "studies")
    done = run_study("paper", "--dataset", "frey_face", *flags, env=without_network())
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "frey_rawface.mat" in line
    assert "Sam Roweis" in line


def test_discrepancies_of_shifted_densities_agree_with_closed_forms():
    rows = divergence.discrepancy_rows()
    assert divergence.largest_error(rows) < 1e-3
    gaussian, uniform = (row for row in rows if row["shift"] == 6)
    assert gaussian["KL"] == pytest.approx(18)
    assert uniform["KL"] == float("inf")
    assert uniform["TV"] == pytest.approx(1)
    assert uniform["W1"] == pytest.approx(6)


def run_study(name, *flags, env=None):
    """Run a study to its end. Returns a CompletedProcess."""
    command = [sys.executable, "-m", f"studies.{name}", *map(str, flags)]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600)
