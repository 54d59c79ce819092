//! karez-site-controller
