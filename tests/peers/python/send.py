"""Sends traces with the real OpenTelemetry SDK and prints their ids, one in a line.

    send.py PROTOCOL HOST PORT SERVICE TRACES

PROTOCOL is jaeger-compact (Thrift over UDP), otlp-grpc or otlp-http (protobuf). A trace has two spans: `parent`
(kind SERVER, attribute `number`) and its child `child` (kind CLIENT). The exit status is 0 only if every export
call reported success; UDP cannot tell more than that the datagrams left.
"""

import sys

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
from opentelemetry.trace import SpanKind, format_trace_id


def exporter(protocol, host, port):
    if protocol == "jaeger-compact":
        from opentelemetry.exporter.jaeger.thrift import JaegerExporter

        return JaegerExporter(agent_host_name=host, agent_port=port)
    if protocol == "otlp-grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

        return OTLPSpanExporter(endpoint=f"{host}:{port}", insecure=True, timeout=10)
    if protocol == "otlp-http":
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        return OTLPSpanExporter(endpoint=f"http://{host}:{port}/v1/traces", timeout=10)
    sys.exit(f"send.py: unknown protocol {protocol!r}")


class Counting:
    """Wraps an exporter and counts the calls that did not succeed."""

    def __init__(self, inner):
        self.inner, self.failed = inner, 0

    def export(self, spans):
        result = self.inner.export(spans)
        if result is not SpanExportResult.SUCCESS:
            self.failed += 1
        return result

    def shutdown(self):
        self.inner.shutdown()

    def force_flush(self, timeout_millis=30000):
        return True


def main():
    protocol, host, port, service, traces = sys.argv[1:]
    counting = Counting(exporter(protocol, host, int(port)))
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(SimpleSpanProcessor(counting))
    tracer = provider.get_tracer("karez.tests")
    for number in range(int(traces)):
        with tracer.start_as_current_span("parent", kind=SpanKind.SERVER, attributes={"number": number}) as parent:
            with tracer.start_as_current_span("child", kind=SpanKind.CLIENT):
                pass
        print(format_trace_id(parent.get_span_context().trace_id))
    provider.shutdown()
    if counting.failed:
        sys.exit(f"send.py: {counting.failed} export calls failed")


main()
