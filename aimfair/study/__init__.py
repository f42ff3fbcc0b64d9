"""A study: a profile's faces, its runs on disk, the search and the grid that compute them, the tables that show them."""

from aimfair.study.study import PROTOCOL, Study, from_notebook, is_wanted, open_study

__all__ = ["PROTOCOL", "Study", "from_notebook", "is_wanted", "open_study"]
