//! karez-collector

pub mod jaeger;
pub mod telemetrygen;
pub mod thrift;
