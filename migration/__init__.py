"""Old loss code to new loss code: the catalog and everything that reads it.

Importing this package (and the catalog, the shims' finder, the codemod) does not import torch.
"""
