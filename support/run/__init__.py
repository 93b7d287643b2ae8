"""A run's life: its flags, its files, what it prints, how it continues and stops. Skip it on a first reading."""
