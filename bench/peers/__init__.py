"""What we are compared with: each as its makers have it run, with its defaults."""


class LeftOutError(Exception):
    """A peer can't be had on this machine; says why."""
