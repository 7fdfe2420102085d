"""Components of single weight files: what makes their tensors, and modules that hold them as stored.

``parts`` and ``quantised`` say what a file's names mean, by its header alone; ``recording`` and ``converters`` run the
libraries' own conversions on stand-ins, ``text_names`` renames text encoders; ``recipes`` derives what is made of what.
``reading`` maps the file, ``arithmetic`` decodes, ``linears`` hold packed weights, ``modules`` builds the component.
"""
