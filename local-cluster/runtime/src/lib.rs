//! karez-local-runtime
