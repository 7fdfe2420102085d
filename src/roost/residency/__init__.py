"""Makes a plan true: weights on the device when they are used, and not otherwise."""
