"""The command ``photonc``, as the program of that name: ``python -m photonc``."""

import sys

from photonc._photonc import main as _main


def main() -> int:
    """Runs the command with the arguments of the process; its exit code."""
    return _main(["photonc", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
