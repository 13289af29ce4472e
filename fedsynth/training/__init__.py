"""One site's training loop, plain or private: where a network, its data and the mechanism meet."""
