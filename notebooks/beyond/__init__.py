"""Analyses that the paper does not have: what single chapters of the book compute beside the library."""
