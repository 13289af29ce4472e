import numpy as np
import pytest

from fedsynth.data.lazy_arrays import Rows
from fedsynth.evaluation import nearest_neighbours
from fedsynth.evaluation.nearest_neighbours import nearest, patient_distances


def draw(n: int, width: int = 24, *, mean: float = 0.0, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng([seed, n]).normal(size=(n, width)) + mean).astype(np.float32)


def slow_distances(queries: np.ndarray, references: np.ndarray) -> np.ndarray:
    differences = queries[:, None].astype(np.float64) - references[None].astype(np.float64)
    return np.sqrt(np.square(differences).sum(axis=2))


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest_neighbours, "QUERIES", 17)
    monkeypatch.setattr(nearest_neighbours, "REFERENCES", 23)


def test_three_points_by_hand():
    references = np.array([[0, 0], [3, 4], [6, 8]], np.float32)
    distances, indices = nearest(np.array([[3, 4]], np.float32), references, 2)
    np.testing.assert_array_equal(distances, [[0, 5]])
    assert indices[0, 0] == 1
    assert indices[0, 1] in (0, 2)


@pytest.mark.parametrize("mean", [0.0, 50.0, 10_000.0])
@pytest.mark.usefixtures("small_blocks")
def test_equals_brute_force_over_many_blocks_whatever_the_mean(mean: float):
    queries, references = draw(60, mean=mean), draw(130, mean=mean)
    references[70] = queries[5]
    references[71] = queries[6] + np.float32(0.01)
    exact = slow_distances(queries, references)
    distances, indices = nearest(queries, references, 7)
    np.testing.assert_array_equal(indices, np.argsort(exact, axis=1)[:, :7])
    np.testing.assert_allclose(distances, np.sort(exact, axis=1)[:, :7], rtol=2e-6)
    assert distances[5, 0] == 0


@pytest.mark.usefixtures("small_blocks")
def test_tight_groups_far_apart_are_distinguished():
    """Single precision products cannot: the distances within a group are 1e-3 beside lengths of 1e3."""
    groups = draw(4, mean=0) * 300
    references = np.concatenate([group + 1e-3 * draw(40, seed=i) for i, group in enumerate(groups)]).astype(np.float32)
    queries = references[::9] + np.float32(2e-4)
    exact = slow_distances(queries, references)
    distances, _ = nearest(queries, references, 5)
    np.testing.assert_allclose(distances, np.sort(exact, axis=1)[:, :5], rtol=1e-5)
    table = patient_distances(queries, references, np.arange(160) // 8, 4)
    expected = np.sort(exact.reshape(len(queries), 20, 8).min(axis=2), axis=1)[:, :4]
    np.testing.assert_allclose(table.distances, expected, rtol=1e-5)


@pytest.mark.usefixtures("small_blocks")
def test_many_equal_rows_have_the_right_distances():
    references = np.repeat(draw(3), 50, axis=0)
    exact = np.sort(slow_distances(draw(40), references), axis=1)
    np.testing.assert_allclose(nearest(draw(40), references, 60)[0], exact[:, :60], rtol=2e-6)


def test_constant_features_are_all_at_distance_zero():
    same = np.full((30, 8), 7.25, np.float32)
    assert (nearest(same, same, 5)[0] == 0).all()
    assert (patient_distances(same, same, np.arange(30) // 3, 4).distances == 0).all()


def test_more_neighbours_than_references_gives_them_all():
    distances, indices = nearest(draw(5), draw(4), 10)
    assert distances.shape == (5, 4)
    np.testing.assert_array_equal(np.sort(indices, axis=1), np.tile(np.arange(4), (5, 1)))


def test_lazy_rows_and_memory_maps_give_the_same(tmp_path):
    references = draw(90)
    np.save(tmp_path / "features.npy", references)
    mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
    plain = nearest(draw(20), references, 3)
    for stack in (mapped, Rows([references[:40], references[40:]])):
        np.testing.assert_array_equal(nearest(draw(20), stack, 3)[1], plain[1])


@pytest.mark.parametrize("mean", [0.0, 2_000.0])
@pytest.mark.usefixtures("small_blocks")
def test_patients_equal_brute_force(mean: float):
    rng = np.random.default_rng(3)
    queries, references = draw(50, mean=mean), draw(140, mean=mean)
    references[33] = queries[7]
    patient_of = rng.permutation(np.concatenate([np.arange(20), rng.integers(0, 20, 120)]))
    exact = slow_distances(queries, references)
    per_patient = np.stack([exact[:, patient_of == number].min(axis=1) for number in range(20)], axis=1)
    found = patient_distances(queries, references, patient_of, 6)
    np.testing.assert_array_equal(found.patients, np.argsort(per_patient, axis=1)[:, :6])
    np.testing.assert_allclose(found.distances, np.sort(per_patient, axis=1)[:, :6], rtol=1e-4)
    assert found.distances[7, 0] == 0


@pytest.mark.usefixtures("small_blocks")
def test_views_count_by_the_nearest_and_the_own_patient_is_left_out():
    real, turned = draw(60), draw(60, seed=1)
    own = np.arange(60) // 4
    exact = np.minimum(slow_distances(real, real), slow_distances(turned, real))
    per_patient = exact.reshape(60, 15, 4).min(axis=2)
    per_patient[np.arange(60), own] = np.inf
    found = patient_distances(iter([real, turned]), real, own, 15, exclude=own)
    np.testing.assert_array_equal(found.patients[:, :-1], np.argsort(per_patient, axis=1)[:, :-1])
    np.testing.assert_allclose(found.distances[:, :-1], np.sort(per_patient, axis=1)[:, :-1], rtol=1e-4)
    assert np.isinf(found.distances[:, -1]).all()
    assert (found.patients[:, -1] == -1).all()


def test_one_patient_and_its_own_exclusion():
    real = draw(6)
    assert (patient_distances(real, real, np.zeros(6, int), 3).distances == 0).all()
    alone = patient_distances(real, real, np.zeros(6, int), 3, exclude=np.zeros(6, int))
    assert np.isinf(alone.distances).all()
    assert (alone.patients == -1).all()


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="one width"):
        nearest(draw(3, 5), draw(3, 6), 1)
    with pytest.raises(ValueError, match="at least one"):
        nearest(draw(3), draw(0), 1)
    poisoned = draw(9)
    poisoned[4, 2] = np.nan
    with pytest.raises(ValueError, match="finite"):
        nearest(draw(3), poisoned, 1)
    with pytest.raises(ValueError, match="finite"):
        nearest(poisoned, draw(9), 1)
