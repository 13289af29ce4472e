"""One function per verb. The command line parses, calls and prints; suites and notebooks call the same functions."""
