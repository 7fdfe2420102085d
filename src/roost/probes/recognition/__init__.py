"""What files and folders are that can't be loaded as they are, and what to do about each."""
