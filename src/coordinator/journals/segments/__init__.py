"""The ``file:`` journal: a folder of segments."""
