"""Running programs that nobody has read.

Two levels with one interface. `bubblewrap` gives each program namespaces of its own; `landlock` needs no
namespaces and works inside containers that refuse them. Neither needs root. `selftest` attacks a level before
it is trusted, `pool` runs programs on it, and `launcher` is the small process in between that sets the limits,
watches, and kills whole process trees from outside.
"""
