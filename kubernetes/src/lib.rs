//! karez-kubernetes
