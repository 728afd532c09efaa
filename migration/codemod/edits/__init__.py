"""The edits of Python source.

``requests`` says what is to be done, as data; ``perform`` finds the statements and hands their text to ``tree``, which
serves the requests with the transformers of ``kinds``. ``commands`` are the same transformers for libcst's own tool.
Everything but ``requests`` and ``perform`` needs libcst.
"""
