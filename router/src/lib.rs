//! karez-router
