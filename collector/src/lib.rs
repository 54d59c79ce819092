//! karez-collector

pub mod extensions;
pub mod jaeger;
pub mod telemetrygen;
pub mod thrift;
