"""`python -m starsmith` is the `starsmith` command."""

from starsmith.cli import main

main()
