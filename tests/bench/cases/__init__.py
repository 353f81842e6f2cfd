"""The cases of the benches, in the order in which they run."""

from tests.bench.cases import callbacks, calls, fleet, footprint, stalls, throughput, tree, web
from tests.bench.harness import Case

CASES: tuple[Case, ...] = (
    *throughput.CASES,
    *callbacks.CASES,
    *calls.CASES,
    *tree.CASES,
    *stalls.CASES,
    *footprint.CASES,
    *fleet.CASES,
    *web.CASES,
)
