"""`python -m queue_client`: the same as `python -m pit queue`, without the pack."""

import argparse
import sys

from .command import add_arguments, run

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m queue_client", description=__doc__)
    add_arguments(parser)
    sys.exit(run(parser.parse_args()))
