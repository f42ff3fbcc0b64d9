"""Shared by the tests."""

import pytest
from toys import toy_faces


@pytest.fixture
def faces():
    return toy_faces
