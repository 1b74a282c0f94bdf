"""The engines: where the units of a run are computed. `registry` knows them by name; `job` says what one is asked and what it answers."""
