//! karez-collector
