"""`python -m hydralora.cli`, the same as the `hydralora` command."""

from hydralora.cli import main

main()
