"""Published datasets: downloaded through torchvision, and told from files that only bear their names."""

import http.client
import socket
import tempfile
import urllib.error
import urllib.parse
from pathlib import Path

from support.data import idx
from support.errors import UserError, load_package

STALL_SECONDS = 10
# The CRC-32 of the published files, unpacked, in the order of idx.FILES. It takes 0.03 s, and MD5 0.16 s.
CHECKSUMS = {
    "mnist": (0xE9F4D8B3, 0xE0CB4AD2, 0x91373BDF, 0x4AB9EFF9),
    "fashion_mnist": (0xB4F29F28, 0x741A4657, 0x678FE0B1, 0x80142C1F),
}


class Unavailable(UserError):
    """A dataset that is neither on disk nor downloadable."""


def fetch(name, data_dir):
    """Put the missing files of a dataset below data_dir; the servers are tried in torchvision's order.

    Raises Unavailable if no server has them, OSError if a file cannot be written.
    """
    datasets = load_package("torchvision.datasets")  # here: it takes seconds, and most runs find their data on disk
    dataset = getattr(datasets, idx.FOLDERS[name])
    raw = data_dir / idx.FOLDERS[name] / "raw"
    causes = {}
    for mirror in dataset.mirrors:
        if None in idx.find(name, data_dir):
            causes[mirror] = _fetch(dataset, mirror, raw)
    if None in idx.find(name, data_dir):
        said = "; ".join(f"{urllib.parse.urlparse(mirror).netloc}: {cause}" for mirror, cause in causes.items())
        ways = "; or connect to the network, or use --dataset digits, which needs no download"
        raise unavailable(name, data_dir, f"could not be downloaded ({said})", ways)


def unavailable(name, data_dir, reason, ways=""):
    """The error of a missing dataset, with more `ways` out. It names files that are there in no form that is read."""
    file = idx.FILES[idx.find(name, data_dir).index(None)]
    others = [str(path) for path in idx.not_understood(name, data_dir)]
    beside = f" Not read, as it is in another form: {', '.join(others[:5])}." if others else ""
    forms = "the four IDX files" + (" or mnist.npz" if name == "mnist" else "")
    return Unavailable(
        f"{file} is not in {data_dir}, and {name} {reason}.{beside} Put {forms} there, or name their place with "
        f"--data_dir{ways}"
    )


def explain(error):
    """The cause of a failed download in a line."""
    if isinstance(error, TimeoutError):
        return f"no answer in {STALL_SECONDS} s"
    text = str(getattr(error, "reason", error)) or type(error).__name__
    cause = text.splitlines()[-1].strip().strip("<>").removeprefix("urlopen error ")
    is_other = cause == "File not found or corrupted."  # torchvision's words for a file with another MD5
    return "a file arrived incomplete or with other contents" if is_other else cause


def _fetch(dataset, mirror, raw):
    """Download a dataset from one server; returns why that failed, or None.

    torchvision checks the MD5 of each .gz. It writes into a folder of its own, so that a file under its final name is
    always whole, however a download ends and however many run at once. `raw` is made when data have arrived, so that
    a mistyped --data_dir leaves no folders behind.
    """
    one_mirror = type(dataset.__name__, (dataset,), {"mirrors": [mirror]})
    place = next((folder for folder in (raw, *raw.parents) if folder.exists()), raw)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(STALL_SECONDS)  # so that a dead network is noticed
    try:
        with tempfile.TemporaryDirectory(prefix=".download", dir=place) as part:
            downloaded = Path(one_mirror(part, download=True).raw_folder)
            raw.mkdir(parents=True, exist_ok=True)
            for path in sorted(downloaded.iterdir()):
                if not (raw / path.name).exists():  # the user's own files stay
                    path.replace(raw / path.name)
    except (RuntimeError, urllib.error.URLError, TimeoutError, ConnectionError, http.client.HTTPException) as error:
        return explain(error)
    except OSError as error:  # torchvision writes to files without naming them
        raise OSError(error.errno, error.strerror, str(raw)) from error
    finally:
        socket.setdefaulttimeout(before)
    return None


def files_with_other_contents(name, arrays):
    """The names of the files whose contents, the arrays of idx.read, are not the published ones, as far as known."""
    others = [crc for checksums in CHECKSUMS.values() for crc in checksums]
    found = zip(idx.FILES, idx.checksums(arrays), CHECKSUMS.get(name, [None] * 4), strict=True)
    return [file for file, crc, published in found if (crc in others if published is None else crc != published)]
