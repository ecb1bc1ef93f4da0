"""The names that others rely on, and what every public function answers to bad input.

The calls run in one plain interpreter, since pytest's own also checks the shapes of arrays.
"""

import json
import subprocess
import sys

import pytest

import pqlib

NAMES = (
    *("Normal", "Laplace", "Uniform", "StudentT", "Truncated", "Empirical", "IntegerGrid"),
    *("expected_quantization_mse", "expected_pruning_mse", "optimal_scale", "matched_sparsity"),
    *("sqnr_db", "kurtosis", "fake_quantize", "magnitude_mask"),
    *("mse", "relative_error", "cka", "quantize", "dequantize", "n_m_mask", "n_zeros"),
    *("storage_bits", "expected_sqnr_db", "quantization_error_parts", "search_scale"),
    *("monte_carlo_quantization_mse", "monte_carlo_pruning_mse", "Distribution"),
    *("scan", "scan_tensor", "read_tensor", "read_weights"),
    *("LayerProblem", "Result", "solve_pruning", "pruning_curve", "solve_quantization"),
    *("verify", "certified_lower", "solve_channels", "allocate"),
)

PRELUDE = """
import json, sys
import numpy as np
from pqlib import *
nan, inf, ok = float("nan"), float("inf"), [0.5, -1.0, 2.0]
grid, rng = IntegerGrid(4, 0.5), np.random.default_rng(0)
two = LayerProblem(np.eye(2), [0.4, -0.3])
import torch
META, SPARSE = torch.zeros(3, device="meta"), torch.eye(3).to_sparse()
for line in sys.stdin:
    expression = json.loads(line)
    try:
        answer = ["value", repr(eval(expression))]
    except Exception as error:
        answer = [type(error).__name__, str(error)]
    print(json.dumps(answer), flush=True)
"""

# Not numbers, not finite, not there: for each function of weights, by argument
WEIGHTS = {
    "optimal_scale({}, 4)": "dist_or_array",
    "optimal_scale({}, 4, granularity='channel')": "dist_or_array",
    "search_scale({}, 4)": "x",
    "kurtosis({})": "x",
    "mse({}, ok)": "x",
    "mse(ok, {})": "x_hat",
    "relative_error({}, ok)": "x",
    "sqnr_db(ok, {})": "x_hat",
    "cka({}, [ok])": "x",
    "cka([ok], {})": "y",
    "Empirical({})": "samples",
    "quantize({}, grid)": "x",
    "fake_quantize({}, grid)": "x",
    "magnitude_mask({}, 0.5)": "x",
    "n_m_mask({}, 1, 3)": "x",
    "LayerProblem(np.eye(3), {})": "weight",
    "LayerProblem({}, [1.0])": "gram",
    "two.error({})": "w_hat",
    "allocate([{}], 1)": r"curves\[0\]",
}
BAD_WEIGHTS = {
    "[nan, 1.0, 2.0]": ("ValueError", "must be finite, got .*(nan|NaN)"),
    "[1.0, inf, 2.0]": ("ValueError", "must be finite, got .*inf"),
    "[-inf, 1.0, 2.0]": ("ValueError", "must be finite, got .*inf"),
    "'abc'": ("TypeError", "must (be an array of|hold) real numbers"),
    "['1', '2', '3']": ("TypeError", "must (be an array of|hold) real numbers"),
    "np.array([1 + 1j, 2, 3])": ("TypeError", "must (be an array of|hold) real numbers"),
    "[]": ("ValueError", r"must not be empty, got shape \(0,\)"),
    "np.empty((0, 3))": ("ValueError", r"must not be empty, got shape \(0, 3\)"),
}

# value -> what it is called in the message
N_BITS = {
    "0": ("ValueError", r"n_bits must be a whole number in 2\.\.16, got 0"),
    "1": ("ValueError", r"n_bits must be a whole number in 2\.\.16, got 1"),
    "17": ("ValueError", r"n_bits must be a whole number in 2\.\.16, got 17"),
    "-4": ("ValueError", r"n_bits must be a whole number in 2\.\.16, got -4"),
    "2.5": ("ValueError", r"n_bits must be a whole number in 2\.\.16, got 2\.5"),
    "4.0": ("ValueError", r"n_bits must be a whole number in 2\.\.16, got 4\.0"),
    "nan": ("ValueError", r"n_bits must be a whole number in 2\.\.16, got nan"),
    "True": ("TypeError", r"n_bits must be an int in 2\.\.16, got True"),
    "'4'": ("TypeError", r"n_bits must be an int in 2\.\.16, got '4'"),
    "None": ("TypeError", r"n_bits must be an int in 2\.\.16, got None"),
}
WITH_N_BITS = (
    "IntegerGrid({}, 0.5)",
    "optimal_scale(Normal(), {})",
    "optimal_scale(ok, {})",
    "optimal_scale([ok], {}, granularity='channel')",
    "search_scale(ok, {})",
    "solve_quantization(two, {}, 1.0)",
)
SPARSITY = {
    "-0.1": ("ValueError", r"sparsity must be a finite number in \[0, 1\), got -0\.1"),
    "1": ("ValueError", r"sparsity must be a finite number in \[0, 1\), got 1"),
    "1.5": ("ValueError", r"sparsity must be a finite number in \[0, 1\), got 1\.5"),
    "nan": ("ValueError", r"sparsity must be a finite number in \[0, 1\), got nan"),
    "'0.5'": ("TypeError", r"sparsity must be a number in \[0, 1\), got '0\.5'"),
    "True": ("TypeError", r"sparsity must be a number in \[0, 1\), got True"),
    "None": ("TypeError", r"sparsity must be a number in \[0, 1\), got None"),
}
WITH_SPARSITY = (
    "expected_pruning_mse(Normal(), {})",
    "expected_pruning_mse(Empirical(ok), {})",
    "expected_pruning_mse(Normal(), {}, 'monte_carlo', n_samples=9, rng=rng)",
    "monte_carlo_pruning_mse(Normal(), {}, 9, rng)",
    "magnitude_mask(ok, {})",
    "n_zeros(10, {})",
)
POSITIVE = {
    "0": ("ValueError", "{name} must be .*positive|{name} must be a finite .* {interval}, got 0"),
    "-1": ("ValueError", "{name} must be a finite number in {interval}, got -1"),
    "nan": ("ValueError", "{name} must be a finite number in {interval}, got nan"),
    "inf": ("ValueError", "{name} must be a finite number in {interval}, got inf"),
    "10**400": ("ValueError", "{name} must be a finite number in {interval}, got 1000"),
    "'1'": ("TypeError", "{name} must be a number in {interval}, got '1'"),
    "True": ("TypeError", "{name} must be a number in {interval}, got True"),
    "None": ("TypeError", "{name} must be a number in {interval}, got None"),
}
WITH_POSITIVE = {
    "IntegerGrid(4, {})": "scale",
    "Normal(0.0, {})": "scale",
    "Laplace({})": "scale",
    "StudentT({})": "nu",
    "solve_quantization(two, 4, {})": "scale",
}
INTERVALS = {"solve_quantization(two, 4, {})": r"\[1e-45, 1e\+45\]"}
N_NONZERO = {
    "-1": ("ValueError", r"n_nonzero must be a whole number in 0\.\.2, got -1"),
    "3": ("ValueError", r"n_nonzero must be a whole number in 0\.\.2, got 3"),
    "1.5": ("ValueError", r"n_nonzero must be a whole number in 0\.\.2, got 1\.5"),
    "nan": ("ValueError", r"n_nonzero must be a whole number in 0\.\.2, got nan"),
    "None": ("TypeError", r"n_nonzero must be an int in 0\.\.2, got None"),
    "True": ("TypeError", r"n_nonzero must be an int in 0\.\.2, got True"),
}
NO_MOMENT = r"StudentT\(nu=2\) has no moment of order 2 \(it needs nu > 2\); truncate it"
OTHERS = {
    "expected_quantization_mse(StudentT(2), grid)": ("ValueError", NO_MOMENT),
    "expected_quantization_mse(StudentT(2), grid, 'quadrature')": ("ValueError", NO_MOMENT),
    "monte_carlo_quantization_mse(StudentT(2), grid, 9, rng)": ("ValueError", NO_MOMENT),
    "quantization_error_parts(StudentT(2), grid)": ("ValueError", NO_MOMENT),
    "optimal_scale(StudentT(2), 4)": ("ValueError", NO_MOMENT),
    "expected_sqnr_db(StudentT(2), 0.1)": ("ValueError", NO_MOMENT),
    "expected_quantization_mse(Normal(), grid, 'closed')": (
        "ValueError",
        r"method must be one of closed_form, quadrature, monte_carlo, got 'closed'",
    ),
    "expected_pruning_mse(Normal(), 0.5, None)": ("ValueError", "method must be one of .*None"),
    "quantization_error_parts(Normal(), grid, 'monte_carlo')": ("ValueError", "method must be"),
    "expected_quantization_mse('normal', grid)": ("TypeError", "dist must be a Distribution"),
    "expected_quantization_mse(Normal, grid)": ("TypeError", "dist must be a Distribution"),
    "expected_pruning_mse(ok, 0.5)": ("TypeError", r"dist must be a Distribution.*Empirical"),
    "expected_sqnr_db('normal', 0.1)": ("TypeError", "dist must be a Distribution"),
    "expected_sqnr_db(Normal(), -0.1)": ("ValueError", r"mse must be a finite number in \[0, inf"),
    "expected_sqnr_db(Normal(), nan)": ("ValueError", "mse must be a finite number.*nan"),
    "expected_quantization_mse(Normal(), 4)": ("TypeError", "grid must be an IntegerGrid"),
    "expected_quantization_mse(Normal(), IntegerGrid(4, [1.0, 2.0]))": (
        "ValueError",
        "grid must have one scale",
    ),
    "monte_carlo_pruning_mse(Normal(), 0.5, 1, rng)": ("ValueError", "n_samples must be.*got 1"),
    "monte_carlo_pruning_mse(Normal(), 0.5, 1e6, rng)": ("ValueError", "n_samples must be"),
    "monte_carlo_quantization_mse(Normal(), grid, 9, 0)": ("TypeError", r"rng must be a.*got 0"),
    "Uniform(1, 1)": ("ValueError", r"b must be a finite number in \(1, inf\), got 1"),
    "Uniform(nan, 1)": ("ValueError", "a must be a finite number.*nan"),
    "Normal(inf)": ("ValueError", "loc must be a finite number.*inf"),
    "Truncated(Normal(), 2, 1)": ("ValueError", r"b must be a finite number in \(2, inf\)"),
    "Truncated(Normal(), -inf, 1)": ("ValueError", "a must be a finite number.*-inf"),
    "Truncated(Uniform(0, 1), 2, 3)": ("ValueError", "has no mass; widen"),
    "Truncated(Empirical(ok), 3, 4)": ("ValueError", "has no mass; widen"),
    "Truncated('normal', 0, 1)": ("TypeError", r"dist must be a Distribution such as Normal\(\)"),
    "Normal().ppf(1.5)": ("ValueError", r"q must lie in \[0, 1\]"),
    "Normal().ppf(nan)": ("ValueError", r"q must lie in \[0, 1\]"),
    "Normal().magnitude_quantile(1.5)": ("ValueError", r"share must be .*got 1\.5"),
    "Normal().partial_moment(5, 0, 1)": ("ValueError", "order must be 0, 1, 2, 3 or 4, got 5"),
    "Normal().partial_moment(2, 1, 0)": ("ValueError", "a must be <= b"),
    "Normal().partial_moment(2, nan, 0)": ("ValueError", r"a must be <= b .*NaN"),
    "Normal().partial_moment(2, 0, 1, about=nan)": ("ValueError", "about must be finite, got nan"),
    "Normal().partial_moment(2, 0, 1, about=inf)": ("ValueError", "about must be finite, got inf"),
    "Normal().cdf(nan)": ("ValueError", "NaN"),
    "Empirical(ok).pdf(1.0)": ("TypeError", "Empirical has no density; use method='closed_form'"),
    "optimal_scale(Normal(), 4, granularity='row')": ("ValueError", "granularity must be one of"),
    "optimal_scale(ok, 4, signed='no')": ("TypeError", "signed must be True or False, got 'no'"),
    "IntegerGrid(4, 1.0, signed=2)": ("TypeError", "signed must be True or False, got 2"),
    "IntegerGrid(4, 1.0, narrow_range='x')": ("TypeError", "narrow_range must be True or False"),
    "IntegerGrid(4, 1.0, zero_point=0.5)": ("ValueError", r"zero_point must be.*got 0\.5"),
    "quantize(ok, 4)": ("TypeError", r"grid must be an IntegerGrid .*got 4"),
    "fake_quantize(ok, 0.5)": ("TypeError", "grid must be an IntegerGrid"),
    "dequantize([1], None)": ("TypeError", "grid must be an IntegerGrid"),
    "dequantize([nan], grid)": ("ValueError", "must be finite"),
    "dequantize(['a'], grid)": ("TypeError", "real numbers"),
    "dequantize([8], grid)": ("ValueError", r"whole numbers in -8\.\.7, .*, got 8; clip them"),
    "dequantize([0.5], grid)": ("ValueError", r"integers must be whole .*, got 0\.5"),
    "quantize([[1, 2], [3]], grid)": ("TypeError", "x must be an array of real numbers"),
    "quantize([ok], IntegerGrid(4, [1.0]), axis='x')": ("TypeError", "axis must be an int, got"),
    "optimal_scale([ok], 4, granularity='channel', axis='x')": ("TypeError", "axis must be an int"),
    "scan_tensor([ok], 4, granularity='channel', axis=None)": ("TypeError", "axis must be an int"),
    "optimal_scales(ok, 4)": ("ValueError", "bits must be a sequence of bit-widths.*got 4"),
    "scan_tensor_bits(ok, 4)": ("ValueError", "bits must be a sequence of bit-widths.*got 4"),
    "compare_bits(ok, [])": ("ValueError", r"bits must be a sequence of bit-widths.*got \[\]"),
    "compare_bits(ok, '4')": ("ValueError", "bits must be a sequence of bit-widths.*got '4'"),
    "compare([nan], 4)": ("ValueError", "dist_or_array must be finite, got nan among 1 values"),
    "profile(ok, 4, 0.5)": ("TypeError", "grid must be an IntegerGrid .*got 4"),
    "crossing(3, 4, 1, 2)": ("TypeError", "family must map a shape to a Distribution, got 3"),
    "truncation_at_kurtosis(Normal(), 28)": ("ValueError", "kurtosis 28; take another kurtosis"),
    "allocate(3, 1)": ("TypeError", "curves must be a sequence with a curve per channel, got 3"),
    "list(solve_channels(two, solve_pruning))": ("TypeError", "problems must be several"),
    "list(solve_channels([two], solve_pruning, n_jobs=0))": (
        "ValueError",
        "n_jobs must be .*got 0",
    ),
    "Table(1)": ("TypeError", "columns must map headings to values, got 1"),
    "magnitude_mask(META, 0.5)": (
        "ValueError",
        r"x must hold numbers, .*\(3,\) on the meta device",
    ),
    "fake_quantize(META, grid)": ("ValueError", "x must hold numbers, .*meta device; load its"),
    "optimal_scale(META, 4)": ("ValueError", "dist_or_array must hold numbers, .*meta device"),
    "IntegerGrid(4, META)": ("ValueError", "scale must hold numbers, .*meta device"),
    "IntegerGrid(4, META[0])": (
        "ValueError",
        r"scale must hold numbers, .*\(\) on the meta device",
    ),
    "magnitude_mask(SPARSE, 0.5)": ("TypeError", r"x must be dense, .*use x\.to_dense\(\)"),
    "kurtosis(SPARSE)": ("TypeError", r"x must be dense, got layout torch\.sparse_coo"),
    "matched_sparsity(0)": ("ValueError", r"n_bits must be a finite number in \(0, 16\], got 0"),
    "matched_sparsity(17)": ("ValueError", r"n_bits must be a finite number in \(0, 16\], got 17"),
    "matched_sparsity(nan)": ("ValueError", "n_bits must be a finite number.*nan"),
    "matched_sparsity('4')": ("TypeError", "n_bits must be a number"),
    "matched_sparsity(True)": ("TypeError", "n_bits must be a number.*True"),
    "matched_sparsity(4, 0)": ("ValueError", r"reference_bits must be.*1\.\.64, got 0"),
    "n_zeros(0, 0.5)": ("ValueError", r"n must be a whole number.*got 0"),
    "n_zeros(2.5, 0.5)": ("ValueError", r"n must be a whole number.*got 2\.5"),
    "storage_bits(10, n_bits=17)": ("ValueError", "n_bits must be a whole number.*got 17"),
    "storage_bits(10, sparsity=1)": ("ValueError", "sparsity must be .*got 1"),
    "n_m_mask(ok, 4, 3)": ("ValueError", r"n must be a whole number in 1\.\.3, got 4"),
    "n_m_mask(ok, 0, 3)": ("ValueError", r"n must be a whole number in 1\.\.3, got 0"),
    "n_m_mask(ok, 1, True)": ("TypeError", "m must be an int.*True"),
    "LayerProblem([[1.0, 2.0], [0.0, 1.0]], [1, 1])": ("ValueError", "gram must be symmetric"),
    "LayerProblem([[1.0, 2.0], [2.0, 1.0]], [1, 1])": (
        "ValueError",
        "gram must be positive semidefinite, it has the eigenvalue -1",
    ),
    "LayerProblem(np.eye(3), [1, 1])": ("ValueError", r"gram must have shape \(2, 2\), got"),
    "LayerProblem(np.eye(2), [[1, 1]])": ("ValueError", r"weight must have shape \(n,\), got"),
    "LayerProblem(np.empty((0, 0)), [])": ("ValueError", "must not be empty"),
    "two.error([1.0])": ("ValueError", r"w_hat must have shape \(2,\), got \(1,\)"),
    "solve_pruning(np.eye(2), 1)": ("TypeError", "problem must be a LayerProblem"),
    "solve_pruning(two, 1, 'greedy')": ("ValueError", "method must be one of exact, magnitude"),
    "solve_pruning(two, 1, max_nodes=0)": ("ValueError", "max_nodes must be .*got 0"),
    "solve_pruning(two, 1, max_seconds=-1)": ("ValueError", "max_seconds must be .*got -1"),
    "pruning_curve(two, max_seconds=nan)": ("ValueError", "max_seconds must be .*got nan"),
    "pruning_curve([1.0])": ("TypeError", "problem must be a LayerProblem"),
    "solve_quantization(np.eye(2), 4, 1.0)": ("TypeError", "problem must be a LayerProblem"),
    "solve_quantization(two, 4, 1.0, 'gptq')": ("ValueError", "method must be one of exact, near"),
    "solve_quantization(two, 4, 1e-16)": ("ValueError", "scale=.* of the largest weight"),
    "solve_quantization(two, 4, 1.0, 'park_boyd')": ("TypeError", "rng must be a numpy.random.G"),
    "certified_lower(two, 4, 1.0, [0.0])": ("ValueError", "dual must be four finite rows of 2"),
    "verify(1.0, two)": ("TypeError", "result must be a Result of a solver, got 1.0"),
    "list(solve_channels([two], 3))": ("TypeError", "solve must take a LayerProblem"),
    "allocate([], 0)": ("ValueError", "curves must hold the curve of at least one channel"),
    "allocate([[1.0, 0.0]], 2)": ("ValueError", r"n_nonzero must be .*0\.\.1, got 2"),
}


def cases():
    for call, name in WEIGHTS.items():
        for value, (error, message) in BAD_WEIGHTS.items():
            yield call.format(value), error, rf"^{name} {message}"
    for call in WITH_N_BITS:
        for value, expected in N_BITS.items():
            yield call.format(value), *expected
    for call in WITH_SPARSITY:
        for value, expected in SPARSITY.items():
            yield call.format(value), *expected
    for value, expected in N_NONZERO.items():
        yield f"solve_pruning(two, {value})", *expected
    for call, name in WITH_POSITIVE.items():
        interval = INTERVALS.get(call, r"\(0, inf\)")
        for value, (error, message) in POSITIVE.items():
            yield call.format(value), error, message.format(name=name, interval=interval)
    for call, expected in OTHERS.items():
        yield call, *expected


CASES = list(cases())
# Kindly taken: what numpy users write, and what is defined
TAKEN = {
    "float(IntegerGrid(np.int64(4), 1).levels()[-1])": "7.0",
    "IntegerGrid(4, np.float32(0.5)) .scale": "0.5",
    "IntegerGrid(4, np.array(0.5)).scale": "0.5",
    "float(Normal(0, 1).cdf(0))": "0.5",
    "float(StudentT(3).pdf(np.float32(0))) > 0.3": "True",
    "matched_sparsity(np.int32(4))": "0.75",
    "optimal_scale(np.array([3, -1, 2], np.int8), 4) > 0": "True",
    "optimal_scale([[True, False]], 4) > 0": "True",
    "sqnr_db(ok, ok)": "inf",
    "optimal_scale([0.0, 0.0], 4)": "1.0",
}


@pytest.fixture(scope="module")
def answers():
    """What a fresh interpreter answers to each expression: its value, or the error."""
    expressions = [*(case[0] for case in CASES), *TAKEN]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PRELUDE],
        input="\n".join(map(json.dumps, expressions)),
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return dict(zip(expressions, lines, strict=True))


def test_no_case_is_listed_twice():
    assert len({case[0] for case in CASES}) == len(CASES) > 200


@pytest.mark.parametrize(("expression", "error", "message"), CASES, ids=[c[0] for c in CASES])
def test_bad_input_is_named(answers, expression, error, message):
    kind, text = answers[expression]
    assert kind == error, text

    def complain():
        raise ValueError(text)

    with pytest.raises(ValueError, match=rf"(?s){message}"):
        complain()


@pytest.mark.parametrize("expression", TAKEN)
def test_what_is_defined_is_answered(answers, expression):
    assert answers[expression] == ["value", TAKEN[expression]]


# Names


@pytest.mark.parametrize("name", NAMES)
def test_names_that_others_rely_on(name):
    assert name in pqlib.__all__
    assert name in dir(pqlib)
    assert callable(getattr(pqlib, name))
    assert getattr(pqlib, name).__doc__


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="module 'pqlib' has no attribute 'nothing'"):
        _ = pqlib.nothing


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_theory_needs_no_torch():
    code = """
import sys
sys.modules["torch"] = None  # an import of it fails
from pqlib import *
import numpy as np
x = np.array([1.0, -2.0, 0.5])
grid = IntegerGrid(4, optimal_scale(x, 4))
fake_quantize(x, grid), magnitude_mask(x, 0.5), kurtosis(x), optimal_scale(Normal(), 4)
expected_quantization_mse(Normal(), grid), expected_pruning_mse(Normal(), 0.5)
print("ok")
"""
    assert run(code) == "ok"


def test_importing_loads_neither_torch_nor_scipy():
    code = "import sys, pqlib; print({'torch', 'scipy', 'cvxpy', 'numpy'} & set(sys.modules))"
    assert run(code) == "set()"


@pytest.mark.parametrize(
    "first", ("fake_quantize", "expected_quantization_mse", "quantize", "dequantize")
)
def test_a_module_does_not_hide_the_function_of_its_name(first):
    code = f"from pqlib import {first}; import pqlib; from pqlib import quantize as q; "
    code += "print(callable(q), callable(pqlib.quantize))"
    assert run(code) == "True True"


def test_a_layers_weight_is_taken_as_it_is():
    torch = pytest.importorskip("torch")
    weight = torch.nn.Parameter(torch.tensor([[0.5, -1.0, 2.0]]))
    expected = pqlib.optimal_scale([0.5, -1.0, 2.0], 3)
    assert pqlib.optimal_scale(weight, 3) == expected
    assert pqlib.optimal_scale(weight.to(torch.bfloat16), 3) == expected
    assert pqlib.kurtosis(weight) == pqlib.kurtosis([0.5, -1.0, 2.0])
