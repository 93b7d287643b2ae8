"""Where a run computes: device, precision, threads, compiled steps, several processes. Skip it on a first reading."""
