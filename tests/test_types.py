"""The shapes that annotations promise are checked while the tests run: the hook in conftest.py works."""

import pytest
import torch
from jaxtyping import TypeCheckError

from mixtura import MixtureHead, get_family


def test_a_wrong_shape_is_noticed():
    with pytest.raises(TypeCheckError):
        get_family("normal").fit(torch.zeros(3), torch.zeros(4, 2))  # 3 rows, 4 weights


def test_a_wrong_dtype_is_noticed():
    with pytest.raises(TypeCheckError):
        MixtureHead(3, 2)(torch.zeros(5, 3, dtype=torch.int64))
