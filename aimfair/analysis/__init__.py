"""Questions that finished runs answer: one file each, from predictions and scores to a table, a number or a verdict."""
