"""``python -m cmdstream``: ask a server that you have in front of you."""

import sys

from cmdstream.command_line import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
