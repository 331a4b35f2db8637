"""Run the app: `python app.py`, which is `hfgan app`. A Space starts here."""

import sys

from hfgan.cli import main

if __name__ == "__main__":
    sys.exit(main(["app", *sys.argv[1:]]))
