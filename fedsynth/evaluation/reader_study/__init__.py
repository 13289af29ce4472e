"""What a physician's eye says: a reader-study page of real and synthetic images, and what its answers amount to."""
