//! karez-collector-config
