"""Files of weights: what each is, what model they are put into, and how its components are made of them.

Nothing here loads a weight; headers and recipes are all that is read.
"""
