"""`python -m selfcascade.cli`, the same as `selfcascade`."""

from selfcascade.cli import main

main()
