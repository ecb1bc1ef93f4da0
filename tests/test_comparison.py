import numpy as np
import pytest

import pqlib as pq
from pqlib import IntegerGrid, Laplace, Normal, StudentT, Truncated, Uniform
from pqlib.verdicts import winner

# errata of the paper: crossing kurtosis (non-excess) of the truncated t, computed independently
CROSSINGS = {2: 8.87, 3: 15.99, 4: 28.35, 5: 51.77, 6: 97.71, 7: 189.14, 8: 370.98}
# kurtosis: r, then quantization / pruning SNR at 2, 3 and 4 bits
TRUNCATED_T = {
    5: (6.142843, (6.9452, 4.6309), (12.1130, 6.2535), (17.6166, 7.7885)),
    10: (12.388158, (5.6820, 6.0877), (9.7702, 7.7860), (14.4632, 9.3643)),
    50: (44.763352, (3.9305, 8.1907), (6.4614, 9.9155), (9.4666, 11.5085)),
    100: (72.875782, (3.4543, 8.8071), (5.5851, 10.5334), (8.0854, 12.1271)),
}


def cut_off(r):
    return Truncated(StudentT(2), -r, r)


@pytest.mark.parametrize("kurtosis", TRUNCATED_T)
def test_truncated_t_agrees_with_the_reference_table(kurtosis):
    r, *rows = TRUNCATED_T[kurtosis]
    found = pq.truncation_at_kurtosis(StudentT(2), kurtosis)
    assert found == pytest.approx(r, abs=5.1e-7)
    for n_bits, (quant, prune) in zip((2, 3, 4), rows, strict=True):
        record = pq.compare(cut_off(found), n_bits)
        assert record.quant_sqnr_db == pytest.approx(quant, abs=5.1e-5)
        assert record.prune_sqnr_db == pytest.approx(prune, abs=5.1e-5)


@pytest.mark.parametrize("n_bits", CROSSINGS)
def test_crossing_of_the_truncated_t(n_bits):
    r = pq.crossing(cut_off, n_bits, 2, 2000)
    assert cut_off(r).kurtosis() == pytest.approx(CROSSINGS[n_bits], abs=0.0051)
    assert abs(pq.compare(cut_off(r), n_bits).margin_db) < 1e-9
    assert pq.compare(cut_off(r * 0.99), n_bits).winner == "quantization"
    assert pq.compare(cut_off(r * 1.01), n_bits).winner == "pruning"


def test_an_array_is_compared_by_compressing_it():
    w = np.random.default_rng(0).laplace(size=(40, 30))
    record = pq.compare(w, 3)
    quantized = pq.fake_quantize(w, IntegerGrid(3, record.scale))
    pruned = w * pq.magnitude_mask(w, 1 - 3 / 16)
    assert record.quant_mse == pytest.approx(np.mean((quantized - w) ** 2), rel=1e-12)
    assert record.prune_mse == pytest.approx(np.mean((pruned - w) ** 2), rel=1e-12)
    assert record.quant_sqnr_db == pytest.approx(pq.sqnr_db(w, quantized), rel=1e-12)
    assert record.margin_db == record.quant_sqnr_db - record.prune_sqnr_db


def test_both_exact_is_neither():
    record = pq.compare(np.array([0.0, 0.0, 0.0, 1.0]), 4)
    assert (record.winner, record.margin_db) == ("neither", 0.0)
    assert record.quant_sqnr_db == record.prune_sqnr_db == np.inf


@pytest.mark.parametrize("dist", [Normal(), Laplace(), Uniform(-1, 1)])
@pytest.mark.parametrize("n_bits", [2, 5])
def test_profile_integrates_to_the_expected_errors(dist, n_bits):
    record = pq.compare(dist, n_bits)
    table = pq.profile(dist, IntegerGrid(n_bits, record.scale), record.sparsity, 20_000)
    width = table.w[1] - table.w[0]
    assert np.sum(table.prune_error) * width == pytest.approx(record.prune_mse, rel=2e-3)
    # the last 0.1 % of the mass is not drawn; it may clip
    beyond = 1 - np.sum(table.quant_error) * width / record.quant_mse
    assert table.quant_beyond == pytest.approx(beyond, abs=1e-3) and table.quant_beyond < 0.35
    assert np.sum(table.level_mass) == pytest.approx(1, abs=1e-12)


def test_bad_input_names_argument_and_remedy():
    with pytest.raises(ValueError, match="same method wins at both low=2 and high=3; widen"):
        pq.crossing(cut_off, 4, 2, 3)
    with pytest.raises(ValueError, match=r"high must be a finite number in \(5"):
        pq.crossing(cut_off, 4, 5, 4)
    with pytest.raises(ValueError, match="kurtosis must be"):
        pq.truncation_at_kurtosis(StudentT(2), 1.5)
    with pytest.raises(ValueError, match="no truncation of Normal"):
        pq.truncation_at_kurtosis(Normal(), 4)
    with pytest.raises(ValueError, match="symmetric about 0"):
        pq.truncation_at_kurtosis(Normal(1.0), 4)
    with pytest.raises(ValueError, match="n_bits"):
        pq.compare(Normal(), 17)
    with pytest.raises(ValueError, match="sparsity"):
        pq.compare(Normal(), 4, sparsity=1.0)
    with pytest.raises(TypeError, match="family must return a Distribution, got 3"):
        pq.crossing(lambda r: 3, 4, 2, 20)
    with pytest.raises(ValueError, match="bits must be a sequence of bit-widths, not empty"):
        pq.compare_bits(Normal(), [])
    with pytest.raises(ValueError, match="sparsity must be"):
        pq.profile(Normal(), IntegerGrid(4, 1.0), 1.0)
    with pytest.raises(ValueError, match="one scale"):
        pq.profile(Normal(), IntegerGrid(4, np.array([1.0, 2.0])), 0.5)


def test_an_interval_that_holds_zero_has_no_winner():
    assert winner(0.1, 2.0) == "quantization" and winner(-2.0, -0.1) == "pruning"
    assert winner(-0.1, 0.1) == winner(0.0, 1.0) == "neither"
    assert winner(5e-15, 1.0) == winner(-1.0, -5e-15) == "neither"  # dust of percentages


def test_a_profile_of_samples_loses_none():
    x = np.array([-1.0, 1.0] * 5)
    found = pq.profile(x, IntegerGrid(4, 0.2), 0.5)
    assert np.sum(found.density) * (found.w[1] - found.w[0]) == pytest.approx(1)
    with pytest.raises(ValueError, match="weights that are not zero"):
        pq.profile(np.zeros(10), IntegerGrid(4, 0.2), 0.5)
