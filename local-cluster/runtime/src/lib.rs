//! karez-local-runtime
mod controllers;
mod observe;
