"""Shapes in the signatures of the model are checked while the tests run."""

import jax
import jax.numpy as jnp
import pytest

from paliflow.model.attention import attend
from paliflow.model.network import attention_mask


def test_an_array_of_another_shape_or_dtype_than_the_signature_says_is_an_error() -> None:
    query, key = jnp.zeros((2, 3, 4, 8)), jnp.zeros((2, 5, 2, 8))
    assert attend(query, key, key, None, None).shape == (2, 3, 4, 8)
    with pytest.raises(TypeError, match=r"attention\.attend\.\n.*parameter 'mask'"):
        attend(query, key, key, jnp.ones((2, 3, 4), bool), None)
    with pytest.raises(TypeError, match=r"attention_mask\.\n.*parameter 'mask_ar'"):
        jax.eval_shape(attention_mask, jnp.zeros((2, 3)))
