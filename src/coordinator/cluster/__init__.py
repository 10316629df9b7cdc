"""Several instances on one journal: what each decides, from what it sees. Pure.

docs/several-instances.md argues it.
"""
