"""Train a variational auto-encoder and draw its latent space: python main.py --epochs 100 --log_interval 30"""

import contextlib
import dataclasses
import os
import sys

from support import environment
from support.config import parse
from support.console import robust_output
from support.errors import UserError, about, explain_missing_packages
from support.signals import Interrupted, stop_on_signals


@explain_missing_packages()
def run(config):
    """One run, from its data to its last picture; under torchrun, this process's part of it."""
    import explorer  # here, as in `prepare`: these import torch, and --help answers without it
    import train
    from support import checkpoint, report

    with about(config.results_dir), prepare(config) as run:
        if report.is_complete(run):
            print(f"All {len(run.history)} epochs in {config.results_dir} are done; --epochs extends the run")
            return
        with report.progress(run) as on_batch:
            for epoch in train.epochs(run, on_batch):
                if run.world.rank == 0:
                    checkpoint.save(run)
                    report.epoch(run, epoch)
                    explorer.remember(run, epoch)
        if run.world.rank == 0:
            explorer.write(run.config, run.dataset, run.history)
            report.finish(run)


@contextlib.contextmanager
def prepare(config):
    """Lock the results directory, load the data, and yield the Run: new, or restored from its checkpoint."""
    import train
    import variants
    from support import checkpoint, data, devices, storage

    device = devices.find_device(config.device)
    devices.limit_threads()
    with contextlib.ExitStack() as stack:
        stack.enter_context(devices.fast_arithmetic())
        stack.enter_context(devices.hide_unused_gpu(device))
        stack.enter_context(devices.explain_torch_errors())
        world = stack.enter_context(devices.join_processes(device))
        if world.rank == 0:
            stack.enter_context(storage.lock(config.results_dir))
        saved = devices.broadcast(checkpoint.find(config) if world.rank == 0 else None, world)
        config = checkpoint.adopt(config, saved)
        held = checkpoint.dataset_in(config.results_dir) if world.rank == 0 else None
        with about(config.data_dir):
            dataset = data.find(config, held, world).to(device)
        config = dataclasses.replace(config, dataset=dataset.name)
        variants.check_batches(config, len(dataset.train_images), world.size)
        run = train.begin(config, dataset, world)
        if saved:
            checkpoint.restore(run, saved)
        yield run


def main(argv=None):
    """Run the command and return its exit code: 0 done, 1 cannot go on, 128 + n stopped by signal n (2: bad flags)."""
    environment.tidy()
    with robust_output():
        try:
            config = parse(argv)
            with stop_on_signals():
                run(config)
        except Interrupted as interrupted:
            if environment.find_world().rank == 0:
                once = " (without --overwrite, once an epoch is saved)" if config.overwrite else ""
                print(f"Interrupted; the same command{once} continues after the last finished epoch", file=sys.stderr)
            return 128 + interrupted.signum
        except UserError as error:
            print(f"main.py: error: {error}", file=sys.stderr)
            return 1
        except OSError as error:
            print(f"main.py: error: {error.filename}: {error.strerror or error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    code = main()
    if environment.find_world() != environment.ALONE:
        # A thread of PyTorch that frees a tensor while the interpreter shuts down would abort the process: skip that.
        os._exit(code)
    sys.exit(code)
