"""Downloads from mirrors on this machine, and telling the published files from others."""

import contextlib
import gzip
import hashlib
import http.server
import os
import shutil
import ssl
import subprocess
import threading
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from helpers import write_mnist

from support.data import datasets, download, idx

NO_ANSWER = "no answer in"


class Mirror(http.server.ThreadingHTTPServer):
    """A server of the stand-in's .gz files on the loopback. `served` lists the files that it has sent."""

    daemon_threads = True

    def __init__(self, files, manner):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = files
        self.manner = manner
        self.served = []
        self.closing = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}/"


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers in the server's manner: whole, half (and then ends), stalling (half, and then silent), or silent."""

    def do_GET(self):
        if self.server.manner == "silent":
            self.server.closing.wait()
            return
        content = self.server.files.get(self.path.strip("/"))
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        with contextlib.suppress(OSError):  # torchvision asks for redirections first, and hangs up
            self.wfile.write(content if self.server.manner == "whole" else content[: len(content) // 2])
        self.server.served.append(self.path.strip("/"))
        if self.server.manner == "stalling":
            self.wfile.flush()
            self.server.closing.wait()

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def archives(small_mnist):
    """The stand-in's four .gz files: their names and bytes."""
    paths = sorted((small_mnist / "MNIST" / "raw").iterdir())
    return {f"{path.name}.gz": gzip.compress(path.read_bytes()) for path in paths}


@pytest.fixture
def mirrors(archives, monkeypatch):
    """Start mirrors, one per manner, as torchvision's for MNIST: mirrors("silent", "whole") -> list of Mirror."""
    datasets = pytest.importorskip("torchvision.datasets")
    servers = []
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "STALL_SECONDS", 0.5)

    def start(*manners):
        servers.extend(Mirror(archives, manner) for manner in manners)
        for server in servers:
            threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        checks = [(f"{file}.gz", hashlib.md5(archives[f"{file}.gz"]).hexdigest()) for file in idx.FILES]
        monkeypatch.setattr(datasets.MNIST, "mirrors", [server.url for server in servers])
        monkeypatch.setattr(datasets.MNIST, "resources", checks)
        return servers

    yield start
    for server in servers:
        server.closing.set()
        server.shutdown()
        server.server_close()


def names_in(raw):
    """The names of the files in a folder, apart from what a killed download left."""
    return sorted(path.name for path in raw.iterdir() if not path.name.startswith(".download"))


def assert_whole(folder, archives):
    """Assert that a --data_dir holds every file, unpacked and as .gz, and nothing else."""
    raw = folder / "MNIST" / "raw"
    assert names_in(raw) == sorted([*idx.FILES, *archives])
    for name, content in archives.items():
        assert (raw / name).read_bytes() == content
        assert (raw / name.removesuffix(".gz")).read_bytes() == gzip.decompress(content)


def test_missing_files_are_downloaded(mirrors, archives, tmp_path):
    mirrors("whole")
    dataset = datasets.load("mnist", tmp_path / "new")
    assert len(dataset.train_images) == 300
    assert_whole(tmp_path / "new", archives)


@pytest.mark.parametrize("manner", ["silent", "stalling", "half"])
def test_second_mirror_is_tried_when_the_first_fails(mirrors, archives, tmp_path, manner):
    start = time.monotonic()
    first, second = mirrors(manner, "whole")
    datasets.load("mnist", tmp_path)
    assert time.monotonic() - start < 10
    assert_whole(tmp_path, archives)
    assert len(first.served) <= 2
    assert set(second.served) == set(archives)


def test_download_cut_off_half_way_leaves_nothing_and_is_begun_again(mirrors, archives, tmp_path):
    (server,) = mirrors("half")
    with pytest.raises(datasets.Unavailable, match=r"127\.0\.0\.1:\d+: .*incomplete.*--data_dir") as refusal:
        datasets.load("mnist", tmp_path)
    assert "\n" not in str(refusal.value)
    assert list(tmp_path.iterdir()) == []
    server.manner = "whole"
    assert len(datasets.load("mnist", tmp_path).test_images) == 60
    assert_whole(tmp_path, archives)


def test_what_a_killed_download_left_is_not_taken_for_data(mirrors, archives, tmp_path):
    part = tmp_path / "MNIST" / "raw" / ".downloadx" / "MNIST" / "raw"
    part.mkdir(parents=True)
    for name in (*idx.FILES, *archives):
        (part / name).write_bytes(b"half of a file")
    mirrors("whole")
    datasets.load("mnist", tmp_path)
    assert_whole(tmp_path, archives)


def test_files_of_the_user_are_kept_by_a_download(mirrors, tmp_path):
    raw = write_mnist(tmp_path, n_test=20) / "MNIST" / "raw"
    for name in idx.FILES[:2]:
        (raw / name).unlink()
    mirrors("whole")
    assert len(datasets.load("mnist", tmp_path).test_images) == 20


def test_two_runs_at_once_both_find_whole_files(mirrors, archives, tmp_path):
    mirrors("whole")
    found = []
    runs = [threading.Thread(target=lambda: found.append(datasets.load("mnist", tmp_path))) for _ in range(2)]
    for run in runs:
        run.start()
    for run in runs:
        run.join(20)
    assert [len(dataset.train_images) for dataset in found] == [300, 300]
    assert_whole(tmp_path, archives)


def test_silent_servers_are_named_within_seconds(mirrors, tmp_path):
    mirrors("silent", "silent")
    start = time.monotonic()
    with pytest.raises(datasets.Unavailable) as refusal:
        datasets.load("mnist", tmp_path / "new")
    assert time.monotonic() - start < 10
    assert str(refusal.value).count(NO_ANSWER) == 2
    assert not (tmp_path / "new").exists(), "a mistyped --data_dir is left behind"


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_data_dir_that_is_a_file_is_named(mirrors, tmp_path, name):
    (tmp_path / "file").touch()
    mirrors("whole")
    with pytest.raises(NotADirectoryError, match=f"{name}/MNIST/raw"):
        datasets.load("mnist", tmp_path / name)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate with openssl")
def test_refused_certificate_is_named(mirrors, tmp_path, monkeypatch):
    (server,) = mirrors("whole")
    certificate = tmp_path / "certificate.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=127.0.0.1 -days 1"
    subprocess.run([*command.split(), "-keyout", certificate, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *arguments: None  # the client hangs up, as it should
    monkeypatch.setattr("torchvision.datasets.MNIST.mirrors", [server.url.replace("http:", "https:")])
    with pytest.raises(datasets.Unavailable, match="certificate verify failed: self-signed certificate"):
        datasets.load("mnist", tmp_path / "new")


# The published files, and others under their names


@pytest.fixture
def published(small_mnist, monkeypatch):
    """The stand-in is what was published as MNIST."""
    monkeypatch.setattr(datasets, "files_with_other_contents", download.files_with_other_contents)
    crcs = [zlib.crc32((small_mnist / "MNIST" / "raw" / file).read_bytes()) for file in idx.FILES]
    monkeypatch.setitem(download.CHECKSUMS, "mnist", tuple(crcs))


def notes_of(name, folder):
    """What the first line of a run says of a dataset in a --data_dir beside its size."""
    return "; ".join(datasets.load(name, folder).notes)


def transpose(path):
    """Transpose the images in an IDX file."""
    content = path.read_bytes()
    images = np.frombuffer(content[16:], np.uint8).reshape(-1, 28, 28)
    path.write_bytes(content[:16] + images.swapaxes(1, 2).tobytes())


def test_published_files_give_no_warning(published, small_mnist):
    assert notes_of("mnist", small_mnist) == ""


def test_transposed_images_are_named_in_a_line_and_used(published, small_mnist, tmp_path):
    shutil.copytree(small_mnist, tmp_path, dirs_exist_ok=True)
    raw = tmp_path / "MNIST" / "raw"
    transpose(raw / "t10k-images-idx3-ubyte")
    assert notes_of("mnist", tmp_path) == "WARNING: not the published contents of t10k-images-idx3-ubyte"


def test_files_of_another_dataset_are_noticed(published, small_mnist, tmp_path):
    for folder in ("FashionMNIST", "KMNIST"):
        shutil.copytree(small_mnist / "MNIST", tmp_path / folder)
    for name in ("fashion_mnist", "kmnist"):
        assert "WARNING: not the published contents of train-images" in notes_of(name, tmp_path)


@pytest.mark.skipif("VAE_DATA_DIR" not in os.environ, reason="needs the real MNIST")
def test_real_mnist_is_the_published_one():
    arrays = idx.read(idx.find("mnist", Path(os.environ["VAE_DATA_DIR"])))
    assert download.files_with_other_contents("mnist", arrays) == []
    arrays[2][0, 0] ^= 1
    assert download.files_with_other_contents("mnist", arrays) == ["t10k-images-idx3-ubyte"]
