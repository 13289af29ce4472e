"""Feature spaces in which images are compared, all blind to who was a member."""
