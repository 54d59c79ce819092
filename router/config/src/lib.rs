//! karez-router-config
