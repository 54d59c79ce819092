//! karez-collector

pub mod extensions;
pub mod jaeger;
pub mod receivers;
pub mod telemetrygen;
pub mod thrift;
