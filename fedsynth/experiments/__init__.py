"""What needs both training and measuring: suites, the canary audit, the task networks of the utility benchmarks."""
