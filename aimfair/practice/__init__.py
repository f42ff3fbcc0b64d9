"""For a classifier and images of your own: repair it, export it, and report what it does to whom."""
