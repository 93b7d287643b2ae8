"""What keeps a run fast, safe and reproducible: four rooms, of which a first reader needs none."""
