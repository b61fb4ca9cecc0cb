"""`python -m local_stack`: the command `./nextclick`."""

from local_stack.cli.main import main

main()
