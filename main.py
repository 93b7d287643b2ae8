"""Train a variational auto-encoder and draw its latent space: python main.py --epochs 100 --log_interval 30"""

import contextlib
import dataclasses
import errno
import os
import sys

from support.config import parse
from support.errors import UserError
from support.signals import Interrupted, stop_on_signals


def run(config):
    """One run, from its data to its last picture; under torchrun, this process's part of it."""
    import explorer  # here, as in `prepare`: these import torch, and --help answers without it
    import train
    from support import checkpoint, report

    with prepare(config) as run:
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
    """The run that a command names, begun or continued, while this process holds its directory."""
    import train
    import variants
    from support import checkpoint, data, devices

    device = devices.find_device(config.device)
    with devices.explain_torch_errors(), devices.join_processes(device) as world, contextlib.ExitStack() as stack:
        if world.rank == 0:
            stack.enter_context(checkpoint.lock(config.results_dir))
        saved = devices.broadcast(checkpoint.find(config) if world.rank == 0 else None, world)
        config = checkpoint.adopt(config, saved)
        precision = devices.find_precision(config.precision, device)
        held = checkpoint.dataset_in(config.results_dir) if world.rank == 0 else None
        dataset = data.find(config, held, world).to(device)
        config = dataclasses.replace(config, dataset=dataset.name, precision=precision)
        variants.check_batches(config, len(dataset.train_images), world.size)
        if saved:
            checkpoint.check_same_run(config, saved)
        run = train.begin(config, dataset, world)
        if saved:
            checkpoint.restore(run, saved)
        yield run


def main(argv=None):
    """Run the command and return its exit code: 0 done, 1 cannot go on, 128 + n stopped by signal n (2: bad flags)."""
    config = parse(argv)
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 (None where the shell has closed it)
    # A line that is piped is there when it is printed, whatever a path in it may hold.
    sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")
    try:
        with stop_on_signals():
            run(config)
    except Interrupted as interrupted:
        if os.environ.get("RANK", "0") == "0":
            command = "the same command" + " without --overwrite" * config.overwrite
            print(f"Interrupted; {command} continues after the last finished epoch", file=sys.stderr)
        return 128 + interrupted.signum
    except UserError as error:
        print(f"main.py: error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        where = error.filename
        if where is None and error.errno in (errno.EPIPE, errno.ENOSPC, errno.EFBIG, errno.EIO):
            where = "standard output"  # the only file written to without a name; nothing may try to flush it again
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print(f"main.py: error: {where}: {error.strerror or error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    code = main()
    if "WORLD_SIZE" in os.environ:
        # PyTorch's threads outlive its process group; one that frees a tensor while the interpreter is taken down would
        # abort the process. Leave without that.
        sys.stdout.flush()
        os._exit(code)
    sys.exit(code)
