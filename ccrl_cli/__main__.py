"""Run the command line with ``python -m ccrl_cli``."""

from ccrl_cli.cli.app import main

if __name__ == "__main__":
    main()
