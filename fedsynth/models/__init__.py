"""Generator families behind one protocol; they know nothing of hospitals, patients or privacy."""
