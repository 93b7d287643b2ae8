"""A run from its start to its end: one context, in the order in which things happen."""

import contextlib
import dataclasses

import variants
from support.data import datasets
from support.errors import naming
from support.machine import arithmetic, devices, processes
from support.run import checkpoint, files, storage


@contextlib.contextmanager
def open_run(config, begin):
    """Yield the run of a Config, alone in its directory: a new one, or the one that its checkpoint continues.

    Another run there is refused before data are downloaded and before a network is built. `begin` is
    `train.begin`, from a Config and a dataset to a new Run; run/ imports no train. Raises UserError if the device, the
    other processes, the directory, the data or the memory prevent the run from starting.
    """
    device = devices.find_device(config.device)
    with (
        arithmetic.fast_arithmetic(),
        devices.explain_missing_memory(),
        processes.explain_lost_process(),
        processes.joined(device),
        storage.lock(config.results_dir) if processes.is_first() else contextlib.nullcontext(),
    ):
        saved = processes.broadcast(checkpoint.find_saved(config) if processes.is_first() else None)
        config = checkpoint.fill_open_flags(config, saved)
        if saved:
            # MNIST, if it was not named, may be replaced by digits.
            fell_back = "dataset" not in config.named and saved.config.dataset == "digits"
            expected = dataclasses.replace(config, dataset="digits") if fell_back else config
            checkpoint.check_same_run(expected, saved)
        dataset = load_dataset(config, saved)
        config = dataclasses.replace(config, dataset=dataset.name)
        if saved:
            checkpoint.check_same_run(config, saved, dataset.checksums)
        if processes.is_first() and not (saved and len(saved.history) >= config.epochs):
            print(f"Training on {dataset.description}")
        variants.check_mmd(config, len(dataset.train_images), processes.size())
        run = begin(config, dataset.to(device))
        if device.type == "cpu":
            devices.leave_gpu_alone(run.optimizer)
        if saved:
            checkpoint.restore(run, saved)
            if processes.is_first():
                checkpoint.check_best(run)
                checkpoint.update_files(run, saved)
                checkpoint.say_changes(run, saved)
        yield run


def load_dataset(config, saved):
    """The dataset of a Config, the same on every process. The first one downloads it; the others find it then."""
    dataset = None
    with naming(config.data_dir):
        if processes.is_first():
            may_be_digits = saved.config.dataset == "digits" if saved else not files.present(config.results_dir)
            dataset = datasets.choose(config, may_be_digits)
        name = processes.broadcast(dataset and dataset.name)
        cache = config.results_dir / datasets.CACHE
        return dataset or datasets.load(name, config.data_dir, download=False, cache=cache)
