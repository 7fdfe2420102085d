"""From the names in a file to those of the library's class.

``recording`` makes stand-ins that know which of the file's values they hold; ``converters`` runs the libraries' own
conversions on them; ``original_names`` holds the authors' names where the libraries have none, for ``by_names`` to
convert by; ``text_names`` renames text encoders.
"""
