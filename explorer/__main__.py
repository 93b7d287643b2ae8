"""Write the page of a finished or unfinished run: python -m explorer results"""

import argparse
import json
import sys
from pathlib import Path

from errors import UserError


def write(folder, data_dir=None):
    """Write folder's explorer.html from what its run has left there.

    Raises:
        UserError, OSError: there is no run, or its files or data are not what they should be.
    """
    import checkpoint  # here, because PyTorch takes seconds to import and --help need not wait
    import data
    import explorer

    try:
        config = json.loads((folder / "config.json").read_bytes())
        history = checkpoint.read(folder / "checkpoint.pt")["history"]
    except FileNotFoundError as error:
        raise UserError(f"there is no run in {folder}: {Path(error.filename).name} is missing") from error
    except (ValueError, KeyError, RecursionError) as error:
        raise UserError(f"{folder} does not hold a run of this program") from error
    if not isinstance(config, dict) or not checkpoint.is_valid(config) or not checkpoint.is_history(history):
        raise UserError(f"{folder} does not hold a run of this program")
    dataset = data.load(config["dataset"], data_dir or config.get("data_dir", "data"), download=False)
    explorer.write(folder, config, dataset, history)


def main(argv=None):
    """Run the command and return its exit code: 0 done, 1 it could not be done (2: bad flags)."""
    parser = argparse.ArgumentParser(prog="python -m explorer", description=__doc__)
    parser.add_argument("results_dir", type=Path, help="where a run has written")
    parser.add_argument("--data_dir", "--data-dir", help="where the run's dataset is (default: where the run found it)")
    flags = parser.parse_args(argv)
    try:
        write(flags.results_dir, flags.data_dir)
        print(f"Open {flags.results_dir / 'explorer.html'} in a browser", flush=True)
    except KeyboardInterrupt:
        return 130
    except UserError as error:
        print(f"explorer: error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"explorer: error: {error.filename or 'standard output'}: {error.strerror or error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
