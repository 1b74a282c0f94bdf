"""One file a sampler: State, init, step, in that order."""
