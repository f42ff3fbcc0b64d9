"""The book: chapters run, published and built into pages."""
