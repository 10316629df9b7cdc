"""``python -m coordinator``: the ``coordinator`` command without its script."""

from coordinator.cli import main

if __name__ == "__main__":
    main()
