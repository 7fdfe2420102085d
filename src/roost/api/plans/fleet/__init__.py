"""Plans for several cards: what fleet is meant, and each worker's plan by the same search as a single card's.

What is made of workers' plans is ``planner/fleet``'s; nothing here runs a fleet.
"""
