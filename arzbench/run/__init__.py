"""A run that cannot be lost, and that ends before its deadline."""
