"""Everything that a release needs, tried before there is one: `make release-check`."""
