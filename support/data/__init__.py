"""Datasets as tensors, from published files or folders of images. Skip it on a first reading."""
