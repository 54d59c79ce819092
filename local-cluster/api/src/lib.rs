//! karez-local-api
