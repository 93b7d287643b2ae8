"""What keeps a run fast, safe and reproducible. Skip it on a first reading: the paper is in model.py and train.py."""
