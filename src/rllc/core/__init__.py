"""Names, seeds, digests, errors and outcomes: what every room may import. Standard library and numpy only."""
