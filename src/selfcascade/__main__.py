"""`python -m selfcascade`, the same as `selfcascade`."""

from selfcascade.cli import main

main()
