"""What synthetic images are still good for: task networks trained on them, scored on real patients."""
