"""Write the page of a finished or unfinished run: python -m explorer results"""

import argparse
import dataclasses

from support.errors import UserError, naming
from support.run.config import dataset_name, directory
from support.run.console import exit_code
from support.run.signals import leave, leave_on_signals


def write(folder, data_dir=None, dataset=None):
    """Write the explorer.html of the run in a folder, from what it has left there.

    Args:
        data_dir, dataset: where the run's data are now. None: where the run found them.

    Raises:
        UserError, OSError: there is no run, or its files or data are not what they should be.
    """
    import explorer  # here: PyTorch takes seconds to import, and --help need not wait
    from support.data import datasets
    from support.run import checkpoint, storage

    if not (folder / "checkpoint.pt").exists():
        raise UserError(f"there is no run in {folder}: checkpoint.pt is missing")
    saved = checkpoint.load(folder / "checkpoint.pt")
    config = dataclasses.replace(saved.config, results_dir=folder)
    if config.latent_dim != 2:
        raise UserError(f"the page needs a run of --latent_dim 2, and the run in {folder} has {config.latent_dim}")
    with naming(folder):
        name = dataset or config.dataset
        data = datasets.load(name, data_dir or config.data_dir, download=False, cache=folder / datasets.CACHE)
        if changed := checkpoint.data_changes(saved.data, data.checksums):
            raise UserError(
                f"{data.title} is not what the run was trained on ({changed}): name the run's own images as --dataset, "
                "or the folder of its published files as --data_dir"
            )
        content = explorer.page_of(config, data, saved.history)
    try:
        storage.write(folder / "explorer.html", content)
    except OSError as error:
        raise UserError(
            f"{error.filename} cannot be written ({error.strerror}): close it where it is open, or make it writable"
        ) from error


def main(argv=None):
    """Run the command and return its exit code: 0 done, 1 it could not be done, 2 bad flags."""
    return exit_code("explorer", lambda: run(argv), {"--data_dir", "--dataset"})


def run(argv):
    """Write the page that a command line names."""
    parser = argparse.ArgumentParser(prog="python -m explorer", description=__doc__)
    parser.add_argument("results_dir", type=directory, help="where a run has written")
    where = "(default: where the run found it)"
    parser.add_argument("--data_dir", "--data-dir", type=directory, help=f"where published datasets are {where}")
    parser.add_argument(
        "--dataset", type=dataset_name, help=f"the folder of images that the run was trained on {where}"
    )
    flags = parser.parse_args(argv)
    write(flags.results_dir, flags.data_dir, flags.dataset)
    print(f"Open {flags.results_dir / 'explorer.html'} in a browser")


if __name__ == "__main__":
    leave_on_signals("")
    leave(main())
