"""Questions answered by experiment, one script each: python -m studies.gap. Skip them on a first reading."""
