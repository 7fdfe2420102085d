"""Components of single weight files: what makes their tensors, and modules that hold them as stored.

``parts`` and ``quantised`` say what a file's names mean, by its header alone; ``conversions`` turn them
into the class's names; ``recipes`` derives what is made of what.
``reading`` maps the file, ``arithmetic`` decodes, ``linears`` hold packed weights, ``modules`` builds the component.
"""
