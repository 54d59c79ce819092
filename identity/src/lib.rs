//! karez-identity
