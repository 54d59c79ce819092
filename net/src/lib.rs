//! karez-net
