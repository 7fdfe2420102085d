"""Pages for people to look at: one file each, without scripts and without the network."""
