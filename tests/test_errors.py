"""Every UserError has a test: a new one without a test fails here.

Most of the tests follow the error's advice, in test_advice.py: the advised command succeeds, or meets the next error.
"""

import ast
from collections import Counter
from pathlib import Path

from helpers import names_of_tests

ROOT = Path(__file__).parent.parent
CORE = ("main.py", "model.py", "train.py", "utils.py")
WINGS = ("support", "variants", "explorer", "pictures")

# The tests of each function that makes such errors: one per error, in the order of the code.
FOLLOWED = {
    "explorer/__init__.py:load_best": ("test_page_of_a_run_that_was_interrupted",),
    "explorer/__main__.py:write": (
        "test_page_of_a_run_whose_images_have_moved_or_changed",
        "test_run_of_three_latent_dimensions_has_no_page",  # there is nothing to follow
        "test_page_of_a_run_whose_images_have_moved_or_changed",
        "test_page_that_cannot_be_written",
    ),
    "support/data/download.py:unavailable": ("test_missing_mnist",),
    "support/data/idx.py:_images_and_labels": ("test_damaged_idx_file", "test_damaged_idx_file"),
    "support/data/idx.py:_read_bytes": ("test_damaged_idx_file",),
    "support/data/idx.py:_read_items": ("test_damaged_idx_file",),
    "support/data/idx.py:_read_whole": ("test_damaged_idx_file",),
    "support/errors.py:load_package": (
        "test_package_that_cannot_be_loaded_is_named_with_its_reason",  # another Python is not at hand
        "test_missing_package",
        "test_package_that_cannot_be_loaded_is_named_with_its_reason",
    ),
    "support/machine/compiled.py:give_up": ("test_compiler_that_fails",),
    "support/machine/devices.py:explain_missing_memory": ("test_missing_memory",),
    "support/machine/devices.py:find_device": (
        "test_device_that_is_not_there",
        "test_one_of_several_processes_does_not_take_the_cpu_alone",
    ),
    "support/machine/devices.py:present_device": ("test_fewer_gpus_than_processes",),
    "support/machine/processes.py:explain_lost_process": (
        "test_compiler_that_fails_in_several_processes_is_a_line",
        "test_process_says_that_another_has_died",  # no advice
    ),
    "support/machine/processes.py:joined": ("test_missing_network_interface_is_named",),
    "support/machine/steps.py:check_finite": ("test_loss_that_is_not_finite",),
    "support/run/checkpoint.py:check_best": ("test_best_pt_that_is_missing_or_another_one",) * 2,
    "support/run/checkpoint.py:check_fit": ("test_run_of_other_widths",),
    "support/run/checkpoint.py:check_same_run": (
        "test_run_of_other_settings",
        "test_run_of_other_settings",
        "test_run_of_other_settings",
        "test_run_on_other_data",
    ),
    "support/run/checkpoint.py:damage": ("test_run_that_cannot_be_read",),
    "support/run/checkpoint.py:find_saved": ("test_files_that_no_run_wrote",),
    "support/run/checkpoint.py:read": ("test_run_that_cannot_be_read",),
    "support/run/checkpoint.py:read_config": ("test_run_that_cannot_be_read",),
    "support/run/console.py:Output.write": ("test_output_that_fails_is_named_with_its_reason",),  # no advice
    "support/run/storage.py:lock": ("test_results_dir_that_cannot_be_used", "test_results_dir_that_cannot_be_used"),
    "variants/__init__.py:check_mmd": (
        "test_batches_without_mmd",
        "test_mmd_in_two_processes_is_refused",
        "test_mmd_of_a_single_training_image_is_refused",
        "test_batches_without_mmd",
    ),
    "variants/images.py:check_classes": ("test_folder_of_another_form",),
    "variants/images.py:decode_all": ("test_damaged_images",),
    "variants/images.py:find_parts": ("test_folder_of_which_one_part_has_classes",),
    "variants/images.py:load_folder": ("test_folder_that_is_gone", "test_folder_that_cannot_be_read"),
}


def errors_made():
    """How many places in each function make a UserError, by path:function."""
    paths = [ROOT / name for name in CORE] + [path for wing in WINGS for path in (ROOT / wing).rglob("*.py")]
    found = Counter()
    for path in paths:
        visit(ast.parse(path.read_text(encoding="utf-8")), (), f"{path.relative_to(ROOT).as_posix()}:", found)
    return found


def visit(node, place, path, found):
    """Count the places below a node of the syntax tree; `place`: the classes and functions that it lies in."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        place = (*place, node.name)
    if isinstance(node, ast.Call):
        name = getattr(node.func, "id", None) or getattr(node.func, "attr", None)
        found[path + ".".join(place)] += name in ("UserError", "Unavailable")
    for child in ast.iter_child_nodes(node):
        visit(child, place, path, found)


def test_every_error_has_a_test():
    assert {place: len(tests) for place, tests in FOLLOWED.items()} == dict(+errors_made())
    assert {name for tests in FOLLOWED.values() for name in tests} <= names_of_tests()
