"""One transformer of libcst per kind of edit, one file each; a file in this folder takes part by being here."""
