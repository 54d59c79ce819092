//! karez-topology
