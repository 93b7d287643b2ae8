"""Published datasets: downloaded through torchvision, and told from files that only bear their names."""

import contextlib
import hashlib
import http.client
import os
import shutil
import socket
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import filelock

from support.data import idx
from support.errors import UserError, load_package

PROBE_SECONDS = 5
STALL_SECONDS = 10
# The CRC-32 of the published files, unpacked, in the order of idx.FILES. It takes 0.03 s, and MD5 0.16 s.
CHECKSUMS = {
    "mnist": (0xE9F4D8B3, 0xE0CB4AD2, 0x91373BDF, 0x4AB9EFF9),
    "fashion_mnist": (0xB4F29F28, 0x741A4657, 0x678FE0B1, 0x80142C1F),
}
# Of KMNIST only the MD5 of each .gz is known here, from torchvision. A .gz ends with the CRC-32 of what is in it, so
# the unpacked file can be checked if its .gz, which torchvision keeps, lies beside it.
KMNIST_ARCHIVES = (
    *("bdb82020997e1d708af4cf47b453dcf7", "e144d726b3acfaa3e44228e80efcd344"),
    *("5c965bf0a639b31b8f53240b1b52f4d7", "7320c461ea6c1c855c0b718fb2a4b134"),
)


class Unavailable(UserError):
    """A dataset that is neither on disk nor downloadable."""


def fetch(name, raw):
    """Put the missing files of a dataset into the folder `raw`; the servers are tried in torchvision's order.

    Two runs at once take turns, and the second finds the files of the first.

    Raises:
        Unavailable: no server has the files.
        OSError: a file cannot be written.
    """
    datasets = load_package("torchvision.datasets")  # here: it takes seconds, and most runs find their data on disk

    dataset = getattr(datasets, idx.FOLDERS[name])
    causes = probe(dataset.mirrors)
    alive = [mirror for mirror, cause in causes.items() if cause is None]
    with take_turns(raw) if alive else contextlib.nullcontext():
        for mirror in alive:
            if idx.missing(raw):
                causes[mirror] = _fetch(dataset, mirror, raw)
    missing = idx.missing(raw)
    if missing:
        said = "; ".join(f"{urllib.parse.urlparse(mirror).netloc}: {cause}" for mirror, cause in causes.items())
        raise Unavailable(
            f"{missing[0]} is missing and {name} could not be downloaded ({said}); put the four IDX files into "
            f"{missing[0].parent}, name their place with --data_dir or $VAE_DATA_DIR, connect to the network, or use "
            "--dataset digits, which needs no download"
        )


def probe(urls):
    """Why each server does not answer, or None if it does: a dict with the keys `urls`, after PROBE_SECONDS at most.

    In threads, as no timeout of Python's bounds a name look-up, and a silent server need not hold up the others.
    """
    causes = dict.fromkeys(urls, f"no answer in {PROBE_SECONDS} s")

    def ask(url):
        try:
            urllib.request.urlopen(url, timeout=2 * PROBE_SECONDS).close()
        except urllib.error.HTTPError:  # a refusal is an answer: a mirror need not list its folder
            causes[url] = None
        except (OSError, http.client.HTTPException) as error:
            causes[url] = explain(error)
        else:
            causes[url] = None

    threads = [threading.Thread(target=ask, args=[url], daemon=True) for url in urls]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + PROBE_SECONDS
    for thread in threads:
        thread.join(max(0, deadline - time.monotonic()))
    return dict(causes)


def explain(error):
    """The cause of a failed download in a line."""
    if isinstance(error, TimeoutError):
        return f"no answer in {STALL_SECONDS} s"
    text = str(getattr(error, "reason", error)) or type(error).__name__
    cause = text.splitlines()[-1].strip().strip("<>").removeprefix("urlopen error ")
    if cause == "File not found or corrupted.":  # torchvision's words for a file with another MD5
        return "a file arrived incomplete or with other contents"
    return cause


@contextlib.contextmanager
def take_turns(raw):
    """Wait until no other run downloads into the folder, which is made if missing."""
    raw.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(raw / ".download.lock")
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        print(f"Waiting for another run that downloads into {raw}", file=sys.stderr)
        lock.acquire()
    except (OSError, NotImplementedError):
        pass  # a file system without locks; if the folder cannot be written to, the download says so
    try:
        yield
    finally:
        lock.release()


def _fetch(dataset, mirror, raw):
    """Download a dataset from one server; returns why that failed, or None.

    torchvision checks the MD5 of each .gz. It writes below a folder of its own, so that a file under its final name is
    always whole, however a download ends.
    """
    part = raw / ".download"
    shutil.rmtree(part, ignore_errors=True)  # of a download that was killed
    one_mirror = type(dataset.__name__, (dataset,), {"mirrors": [mirror]})
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(STALL_SECONDS)  # so that a dead network is noticed
    try:
        downloaded = one_mirror(part, download=True).raw_folder
        for file in sorted(os.listdir(downloaded)):
            if not (raw / file).exists():  # the user's own files stay
                os.replace(os.path.join(downloaded, file), raw / file)
    except (RuntimeError, urllib.error.URLError, TimeoutError, ConnectionError, http.client.HTTPException) as error:
        return explain(error)
    except OSError as error:  # torchvision writes to files without naming them
        raise OSError(error.errno, error.strerror, error.filename or str(raw)) from error
    finally:
        socket.setdefaulttimeout(before)
        shutil.rmtree(part, ignore_errors=True)
    return None


def files_with_other_contents(name, raw, arrays):
    """The paths of the files whose contents, the arrays of idx.read, are not the published ones, as far as known."""
    others = [crc for checksums in CHECKSUMS.values() for crc in checksums]
    found = []
    for i, crc in enumerate(idx.checksums(arrays)):
        path = raw / idx.FILES[i]
        published = CHECKSUMS[name][i] if name in CHECKSUMS else _archived_checksum(path, KMNIST_ARCHIVES[i])
        is_wrong = crc in others if published is None else crc != published
        if is_wrong:
            found.append(path)
    return found


def _archived_checksum(path, md5):
    """The CRC-32 of a file, from its .gz beside it. None: there is no .gz, or it is not the published one."""
    path = idx.archive(path)
    if not path.exists():
        return None
    content = path.read_bytes()
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
        return None
    return int.from_bytes(content[-8:-4], "little")
