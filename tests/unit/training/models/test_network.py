import numpy as np
import onnxruntime
import pytest
import torch

from training.data.simulate import simulate
from training.models.network import Attribution, FoldedMember, FraudNetwork, Preprocessing, dense_layers
from training.models.onnx_export import export_onnx


@pytest.fixture(scope="module")
def features():
    return np.array(simulate(400, 3).iloc[:, :30], np.float32)


@pytest.fixture(scope="module")
def network(features):
    torch.manual_seed(0)
    preprocessing = Preprocessing(30)
    preprocessing.fit(torch.from_numpy(features), torch.ones(len(features)))
    members = []
    for _ in range(2):
        member = dense_layers(30, (64, 32), 0.3)
        member.train()
        for _ in range(20):  # BatchNorm needs statistics that are not its initial ones
            member(preprocessing(torch.from_numpy(features)) + 0.1)
        members.append(member)
    return FraudNetwork(preprocessing, members, -2.0).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def exported(network, tmp_path_factory):
    return export_onnx(network, tmp_path_factory.mktemp("onnx"))


def session(path):
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def extremes():
    """Return transactions at the limits the service enforces."""
    rng = np.random.default_rng(0)
    values = rng.uniform(-1000, 1000, (500, 30))
    values[:, 0] = rng.uniform(0, 1e7, 500)
    values[:, 29] = rng.uniform(0, 1e7, 500)
    values[0], values[1] = 0.0, [1e7, *[1000.0] * 28, 1e7]
    return values.astype(np.float32)


def test_inputs_are_standardised_and_know_only_the_time_of_day(network, features):
    inputs = network.preprocessing(torch.from_numpy(features)).numpy()
    assert inputs.mean(0) == pytest.approx(np.zeros(30), abs=0.05)
    tomorrow = features.copy()
    tomorrow[:, 0] += 86_400
    assert network(torch.from_numpy(tomorrow)).numpy() == pytest.approx(
        network(torch.from_numpy(features)).numpy(), abs=1e-5
    )


@pytest.mark.parametrize("rows", [1, 2, 400])
def test_onnx_scores_like_torch(network, exported, features, rows):
    batch = features[:rows]
    scores = session(exported[0]).run(["score"], {"features": batch})[0]
    assert scores.dtype == np.float32
    assert scores.shape == (rows,)
    assert np.abs(scores - network(torch.from_numpy(batch)).numpy()).max() <= 1e-6


def test_onnx_scores_like_torch_at_the_limits(network, exported):
    scores = session(exported[0]).run(None, {"features": extremes()})[0]
    assert np.isfinite(scores).all()
    assert ((scores >= 0) & (scores <= 1)).all()
    assert np.abs(scores - network(torch.from_numpy(extremes())).numpy()).max() <= 1e-6


def test_written_out_gradient_is_that_of_autograd(network, features):
    inputs = network.preprocessing(torch.from_numpy(features)).requires_grad_(True)
    member = network.members[0]
    member(inputs).sum().backward()
    assert inputs.grad is not None
    assert torch.allclose(FoldedMember(member)(inputs.detach()), inputs.grad, atol=1e-4)


def test_contributions_add_up_to_the_difference_from_the_average_transaction(network, features):
    with torch.no_grad():
        batch = torch.from_numpy(features)
        attribution = Attribution(network, steps=64)(batch)
        base = sum(member(torch.zeros(1, 30)) for member in network.members).item() / 2 - 2.0
        assert attribution[:, 30].numpy() == pytest.approx(base, abs=1e-5), (
            "the average transaction's log-odds"
        )
        assert torch.allclose(attribution.sum(1), network.logits(batch), atol=0.05)


def test_onnx_attribution_is_that_of_torch(network, exported, features):
    found = session(exported[1]).run(["contributions"], {"features": features})[0]
    assert found.shape == (len(features), 31)
    with torch.no_grad():
        assert found == pytest.approx(Attribution(network)(torch.from_numpy(features)).numpy(), abs=1e-4)


def test_a_feature_that_never_varies_does_not_divide_by_zero():
    preprocessing = Preprocessing(30)
    preprocessing.fit(torch.ones(10, 30), torch.ones(10))
    assert torch.isfinite(preprocessing(torch.ones(2, 30))).all()
