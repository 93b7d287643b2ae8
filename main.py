"""Train a variational auto-encoder and draw its latent space: python main.py --epochs 100 --log_interval 30"""

import sys

from support.machine.environment import find_world
from support.run.config import parse
from support.run.console import exit_code
from support.run.signals import leave, leave_on_signals

INTERRUPTED = "Interrupted; the same command continues after the last finished epoch"


def run(config):
    """One run, from its data to its last picture; under torchrun, this process's part of it."""
    import explorer  # here: these import torch, and --help answers without it
    import pictures
    import train
    from support.machine.processes import is_first
    from support.run import checkpoint, report, session

    with session.open_run(config, train.begin) as run:
        if report.is_complete(run):
            if is_first():
                print(f"All {len(run.history)} epochs in {config.results_dir} are done; --epochs extends the run")
            return
        with report.progress(run) as on_batch:
            for result in train.epochs(run, on_batch):
                if is_first():
                    checkpoint.save(run)
                    report.show_epoch(run, result)
                    pictures.write_epoch(run, result)
                    explorer.save_means(run, result)
        if is_first():
            pictures.write_last(run)
            explorer.write(run.config, run.dataset, run.history)
            report.show_end(run)


def main(argv=None):
    """Run the command and return its exit code: 0 done, 1 cannot go on, 2 bad flags."""
    return exit_code("main.py", lambda: run(parse(argv)))


if __name__ == "__main__":
    if "--overwrite" in sys.argv:
        INTERRUPTED += " (without --overwrite, once an epoch is saved)"
    leave_on_signals(INTERRUPTED if find_world().rank == 0 else "")
    leave(main())
