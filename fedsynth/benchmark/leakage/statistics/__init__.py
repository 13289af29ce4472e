"""The statistics of every leakage test, in plain arrays: it knows neither images nor networks, and decides nothing."""
