"""A few long pages of packages that no training split has, for `make demo`."""
