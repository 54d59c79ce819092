//! karez-document
