//! karez-site
