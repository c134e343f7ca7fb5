"""What every runner must satisfy: small named checks, each runner takes them all."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.float32]


class Runner(Protocol):
    """A runner service's instance."""

    async def score(self, features: Rows, /) -> Rows: ...
    async def contributions(self, features: Rows, /) -> Rows: ...


def rows(count: int, seed: int = 3) -> Rows:
    """Return invented raw features, alarming rows among them."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(count, 30)).astype(np.float32)
    features[:, 0] = np.arange(count)
    features[::3, 14] -= 5
    return features


async def check_one_score_per_row(make: Callable[[], Runner]) -> None:
    runner = make()
    for count in (1, 2, 17, 500):
        assert (await runner.score(rows(count))).shape == (count,)


async def check_finite_and_in_range(make: Callable[[], Runner]) -> None:
    extreme = np.concatenate([rows(50), rows(50) * 1000, np.zeros((1, 30), np.float32)])
    scores = await make().score(np.clip(extreme, -1000, 1000).astype(np.float32))
    assert np.all(np.isfinite(scores)) and np.all((scores >= 0) & (scores <= 1))


async def check_row_order(make: Callable[[], Runner]) -> None:
    runner, features = make(), rows(64)
    assert len(set((await runner.score(features)).tolist())) > 1
    np.testing.assert_allclose(
        await runner.score(features[::-1].copy()), (await runner.score(features))[::-1]
    )


async def check_independent_of_batch_size(make: Callable[[], Runner]) -> None:
    runner, features = make(), rows(300)
    together = await runner.score(features)
    alone = np.concatenate([await runner.score(features[i : i + 1]) for i in range(0, 300, 7)])
    np.testing.assert_allclose(together[::7], alone, atol=1e-6)


async def check_input_untouched(make: Callable[[], Runner]) -> None:
    features = rows(20)
    features.flags.writeable = False  # as it comes off the wire
    before = features.copy()
    await make().score(features)
    await make().contributions(features)
    np.testing.assert_array_equal(features, before)


async def check_same_after_reload(make: Callable[[], Runner]) -> None:
    features = rows(100)
    np.testing.assert_array_equal(await make().score(features), await make().score(features))


async def check_contributions_explain_the_score(make: Callable[[], Runner]) -> None:
    """One for each feature, then the base value; together they are the log-odds of the score, to 1e-4."""
    runner, features = make(), rows(200)
    contributions = await runner.contributions(features)
    assert (contributions.shape, contributions.dtype) == ((200, 31), np.float32)
    assert np.all(np.isfinite(contributions))
    scores = (await runner.score(features)).astype(np.float64)
    log_odds = np.log(scores / (1 - scores))
    assert np.ptp(log_odds) > 1  # a constant would be explained by the base value alone
    np.testing.assert_allclose(contributions.sum(axis=1, dtype=np.float64), log_odds, rtol=0, atol=1e-4)
    np.testing.assert_allclose(contributions[:, -1], contributions[0, -1], rtol=0, atol=1e-4)


CHECKS = [value for name, value in sorted(globals().items()) if name.startswith("check_")]
