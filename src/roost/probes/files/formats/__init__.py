"""How each weight of a file is stored, told by names, dtypes, shapes and markers: codes, scales, rotation.

Which formats run is not decided here: ``facts/weight_formats`` says that.
"""
