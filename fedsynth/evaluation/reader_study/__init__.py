"""What a physician's eye says: a blinded sheet of real and synthetic images, and what its answers amount to."""
