"""Numbers and how they are written."""

from __future__ import annotations

from tega_broker.bridge.metrics import Exposition, Metrics


def test_the_format() -> None:
    out = Exposition()
    out.one("a_total", "counter", "How many.\nReally \\ truly.", 3)
    out.metric("b", "gauge", "B", [({"x": 'q"u\\o\nte', "y": 1}, 0.5), ({"x": "none"}, None)])
    out.metric("c", "gauge", "C", [])
    out.one("d", "gauge", "D", None)
    out.histogram("e_seconds", "E", (0.1, 1.0), [1, 0, 2], 12.5)
    assert out.text() == (
        "# HELP a_total How many.\\nReally \\\\ truly.\n# TYPE a_total counter\na_total 3\n"
        '# HELP b B\n# TYPE b gauge\nb{x="q\\"u\\\\o\\nte",y="1"} 0.5\n'
        "# HELP e_seconds E\n# TYPE e_seconds histogram\n"
        'e_seconds_bucket{le="0.1"} 1\ne_seconds_bucket{le="1"} 1\ne_seconds_bucket{le="+Inf"} 3\n'
        "e_seconds_sum 12.5\ne_seconds_count 3\n"
    )


def test_requests_are_counted_in_few_series() -> None:
    metrics = Metrics()
    for method in ("GET", "BREW", "X" * 100):
        metrics.request(method, 200, 0.0007)
    metrics.request("GET", 200, 99.0)
    assert metrics.requests == {("GET", 200): 2, ("other", 200): 2}
    assert (metrics.seconds[1], metrics.seconds[-1], sum(metrics.seconds)) == (3, 1, 4)
