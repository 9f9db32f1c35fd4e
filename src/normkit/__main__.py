"""`python -m normkit`: the command line."""

from normkit.cli import main

main()
