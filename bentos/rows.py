"""Rows of numbers as the models take and give them."""

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.float32]
"""float32 of shape (n, 30) for features, (n,) for scores, (n, 31) for contributions with their base value."""
