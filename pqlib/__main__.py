"""Run the command line as ``python -m pqlib``."""

from pqlib.cli import main

if __name__ == "__main__":
    main()
