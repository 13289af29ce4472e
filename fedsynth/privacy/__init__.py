"""The mechanism between patients and networks: secret randomness, clipped gradients, accounting and the ledger."""
