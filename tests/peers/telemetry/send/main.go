// Sends traces, metrics and log records with the official OpenTelemetry SDK for Go.
//
//	send PROTOCOL ADDRESS SERVICE COUNT COMPRESSION
//
// PROTOCOL is grpc or http, COMPRESSION is none or gzip. Sends COUNT spans `span-N` with the attribute `number`, a counter
// `requests` with COUNT data points (attribute `number`), and COUNT log records `record N`. The exit status is 0
// only if every export was acknowledged.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"strconv"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploggrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploghttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	otellog "go.opentelemetry.io/otel/log"
	"go.opentelemetry.io/otel/metric"
	sdklog "go.opentelemetry.io/otel/sdk/log"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

type exporters struct {
	traces  *otlptrace.Exporter
	metrics sdkmetric.Exporter
	logs    sdklog.Exporter
}

func main() {
	protocol, address, service, compression := os.Args[1], os.Args[2], os.Args[3], os.Args[5]
	count, err := strconv.Atoi(os.Args[4])
	must(err)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	otel.SetErrorHandler(otel.ErrorHandlerFunc(must))
	to := open(ctx, protocol, address, compression)
	about := resource.NewSchemaless(attribute.String("service.name", service))
	spans(ctx, to.traces, about, count)
	points(ctx, to.metrics, about, count)
	records(ctx, to.logs, about, count)
}

func spans(ctx context.Context, to *otlptrace.Exporter, about *resource.Resource, count int) {
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(to), sdktrace.WithResource(about))
	tracer := provider.Tracer("karez.tests")
	for number := range count {
		_, span := tracer.Start(ctx, fmt.Sprintf("span-%d", number))
		span.SetAttributes(attribute.Int("number", number))
		span.End()
	}
	must(provider.Shutdown(ctx))
}

func points(ctx context.Context, to sdkmetric.Exporter, about *resource.Resource, count int) {
	reader := sdkmetric.NewPeriodicReader(to, sdkmetric.WithInterval(time.Hour))
	provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader), sdkmetric.WithResource(about))
	counter, err := provider.Meter("karez.tests").Int64Counter("requests")
	must(err)
	for number := range count {
		counter.Add(ctx, int64(number), metric.WithAttributes(attribute.Int("number", number)))
	}
	must(provider.Shutdown(ctx))
}

func records(ctx context.Context, to sdklog.Exporter, about *resource.Resource, count int) {
	processor := sdklog.NewSimpleProcessor(to)
	provider := sdklog.NewLoggerProvider(sdklog.WithProcessor(processor), sdklog.WithResource(about))
	logger := provider.Logger("karez.tests")
	for number := range count {
		var record otellog.Record
		record.SetTimestamp(time.Now())
		record.SetSeverity(otellog.SeverityInfo)
		record.SetBody(attribute.StringValue(fmt.Sprintf("record %d", number)))
		record.AddAttributes(attribute.Int("number", number))
		logger.Emit(ctx, record)
	}
	must(provider.Shutdown(ctx))
}

func open(ctx context.Context, protocol, address, compression string) exporters {
	switch protocol {
	case "grpc":
		return overGRPC(ctx, address, compression)
	case "http":
		return overHTTP(ctx, address, compression == "gzip")
	}
	log.Fatalf("send: unknown protocol %q", protocol)
	return exporters{}
}

func overGRPC(ctx context.Context, address, compression string) exporters {
	traceOptions := []otlptracegrpc.Option{otlptracegrpc.WithEndpoint(address), otlptracegrpc.WithInsecure()}
	metricOptions := []otlpmetricgrpc.Option{otlpmetricgrpc.WithEndpoint(address), otlpmetricgrpc.WithInsecure()}
	logOptions := []otlploggrpc.Option{otlploggrpc.WithEndpoint(address), otlploggrpc.WithInsecure()}
	if compression == "gzip" {
		traceOptions = append(traceOptions, otlptracegrpc.WithCompressor(compression))
		metricOptions = append(metricOptions, otlpmetricgrpc.WithCompressor(compression))
		logOptions = append(logOptions, otlploggrpc.WithCompressor(compression))
	}
	traces, err := otlptracegrpc.New(ctx, traceOptions...)
	must(err)
	metrics, err := otlpmetricgrpc.New(ctx, metricOptions...)
	must(err)
	logs, err := otlploggrpc.New(ctx, logOptions...)
	must(err)
	return exporters{traces, metrics, logs}
}

func overHTTP(ctx context.Context, address string, gzip bool) exporters {
	traceOptions := []otlptracehttp.Option{otlptracehttp.WithEndpoint(address), otlptracehttp.WithInsecure()}
	metricOptions := []otlpmetrichttp.Option{otlpmetrichttp.WithEndpoint(address), otlpmetrichttp.WithInsecure()}
	logOptions := []otlploghttp.Option{otlploghttp.WithEndpoint(address), otlploghttp.WithInsecure()}
	if gzip {
		traceOptions = append(traceOptions, otlptracehttp.WithCompression(otlptracehttp.GzipCompression))
		metricOptions = append(metricOptions, otlpmetrichttp.WithCompression(otlpmetrichttp.GzipCompression))
		logOptions = append(logOptions, otlploghttp.WithCompression(otlploghttp.GzipCompression))
	}
	traces, err := otlptracehttp.New(ctx, traceOptions...)
	must(err)
	metrics, err := otlpmetrichttp.New(ctx, metricOptions...)
	must(err)
	logs, err := otlploghttp.New(ctx, logOptions...)
	must(err)
	return exporters{traces, metrics, logs}
}

// must ends the program on an error: also one that an export reported.
func must(err error) {
	if err != nil {
		log.Fatalf("send: %v", err)
	}
}
