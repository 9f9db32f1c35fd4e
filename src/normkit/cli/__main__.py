"""`python -m normkit.cli`, for where the program is not on the path."""

from normkit.cli import main

main()
