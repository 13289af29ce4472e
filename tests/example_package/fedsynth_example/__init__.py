"""A package that adds a generator and a reader to fedsynth, without a fork."""
