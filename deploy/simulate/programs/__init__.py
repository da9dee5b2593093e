"""Programs of the vendor's that exist under ``simulate``: one module each, with ``main(argv)``.

``main`` takes the words after the program's name and returns the exit status.
"""
