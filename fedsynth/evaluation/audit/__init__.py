"""Canary patients, and the lower bounds on epsilon that guessing their coins proves."""
