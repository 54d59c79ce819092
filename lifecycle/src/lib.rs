//! karez-lifecycle
