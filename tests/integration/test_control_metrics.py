"""The metrics port over a real socket, read back with Prometheus' own parser."""

from __future__ import annotations

from pathlib import Path

from control_harness import Control, assert_error, open_client, running_control
from prometheus_client.parser import text_string_to_metric_families

from stoker_gateway.counters import FunctionCounters
from stoker_sdk.errors import Unavailable

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


async def scrape(control: Control) -> tuple[str, Samples]:
    async with open_client(control.metrics_socket) as client, client.get("/metrics") as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        text = await response.text()
    samples = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    return text, samples


def greet(name: str, **labels: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    return name, tuple(sorted({"function_name": "greet.openfaas-fn", **labels}.items()))


async def test_calls_have_the_names_labels_and_values_of_the_contract(tmp_path: Path) -> None:
    async with running_control(tmp_path) as control:
        await control.deploy(labels={"com.openfaas.scale.min": "2"})
        for code, seconds in ((200, 0.005), (200, 0.3), (500, 60.0)):
            control.counters.start("greet.openfaas-fn")
            control.counters.end("greet.openfaas-fn", code, seconds)
        control.counters.start("greet.openfaas-fn")
        text, samples = await scrape(control)
    assert samples[greet("gateway_function_invocation_total", code="200")] == 2
    assert samples[greet("gateway_function_invocation_total", code="500")] == 1
    # Read from the text, because the parser gives every counter the `_total` that this one must not have.
    assert 'gateway_function_invocation_started{function_name="greet.openfaas-fn"} 4.0\n' in text
    assert samples[greet("gateway_function_invocation_inflight")] == 1
    assert samples[greet("gateway_service_count")] == 2
    assert samples[greet("gateway_service_ready_count")] == 2
    assert samples[greet("gateway_service_min")] == 2
    assert samples[greet("gateway_service_target_load", scaling_type="rps")] == 50
    buckets = {bound: samples[greet("gateway_functions_seconds_bucket", code="200", le=bound)] for bound in BOUNDS}
    assert list(buckets.values()) == [1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2]
    assert samples[greet("gateway_functions_seconds_bucket", code="500", le="10")] == 0
    assert samples[greet("gateway_functions_seconds_bucket", code="500", le="+Inf")] == 1
    assert samples[greet("gateway_functions_seconds_count", code="200")] == 2
    assert samples[greet("gateway_functions_seconds_sum", code="200")] == 0.305
    assert "# TYPE gateway_function_invocation_started counter\n" in text
    assert "gateway_function_invocation_started_total" not in text and "_created" not in text


async def test_every_namespace_is_shown_with_what_its_labels_ask_for(tmp_path: Path) -> None:
    labels = {"com.openfaas.scale.type": "capacity", "com.openfaas.scale.target": "7", "com.openfaas.scale.min": "3"}
    async with running_control(tmp_path) as control:
        body = {"name": "dev", "labels": {"openfaas": "1"}}
        async with control.client.post("/system/namespace/", json=body) as response:
            assert response.status == 201
        await control.deploy(namespace="dev", labels=labels)
        _, samples = await scrape(control)
    assert samples["gateway_service_count", (("function_name", "greet.dev"),)] == 3
    target = ("gateway_service_target_load", (("function_name", "greet.dev"), ("scaling_type", "capacity")))
    assert samples[target] == 7


async def test_requests_to_the_api_are_counted_by_route_and_not_by_name(tmp_path: Path) -> None:
    async with running_control(tmp_path) as control:
        for name in ("a", "b"):
            async with control.client.get(f"/system/function/{name}") as response:
                assert response.status == 404
        async with control.client.get("/system/whatever") as response:
            assert response.status == 404
        async with control.client.get("/healthz") as response:
            assert response.status == 200
        _, samples = await scrape(control)
    requests = {labels: value for (name, labels), value in samples.items() if name == "http_requests_total"}
    assert requests == {
        (("method", "GET"), ("path", "/system/function"), ("status", "404")): 2,
        (("method", "GET"), ("path", "/system"), ("status", "404")): 1,
    }
    durations = [name for name, _ in samples if name == "http_request_duration_seconds_count"]
    assert len(durations) == 2


async def test_this_process_is_measured_too(tmp_path: Path) -> None:
    async with running_control(tmp_path) as control:
        _, samples = await scrape(control)
    assert samples["process_resident_memory_bytes", ()] > 0


async def test_counts_that_cannot_be_had_fail_the_scrape(tmp_path: Path) -> None:
    class Broken:
        async def totals(self) -> list[FunctionCounters]:
            raise Unavailable("no proxy answers")

    async with (
        running_control(tmp_path, counters=Broken()) as control,
        open_client(control.metrics_socket) as client,
        client.get("/metrics") as response,
    ):
        await assert_error(response, 503, "unavailable", "no proxy answers")


async def test_the_port_has_health_and_nothing_else(tmp_path: Path) -> None:
    async with running_control(tmp_path) as control, open_client(control.metrics_socket) as client:
        async with client.get("/healthz") as response:
            assert (response.status, await response.text()) == (200, "OK")
        for method in ("POST", "HEAD"):
            async with client.request(method, "/healthz") as response:
                assert response.status == 405
        async with client.get("/system/functions") as response:
            await assert_error(response, 404, "not-found")
    async with running_control(tmp_path) as control, control.client.get("/metrics") as response:
        assert response.status == 404


BOUNDS = ("0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10", "+Inf")
