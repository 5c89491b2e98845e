"""`python -m stoker_cli`: the command without its console script."""

from stoker_cli.main import main

main()
