"""One holder's training loop, plain or private: where a network, its data and the guarded door meet."""
