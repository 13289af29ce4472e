"""Brain phantoms: patients with real anatomy and grown tumours, seen through each hospital's own scanner."""
