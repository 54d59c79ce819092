//! Composes a site on one machine and speaks for it.
//!
//! ```text
//!  manifests ─► loader ─► local cluster (Kubernetes API) ─► controllers ─► runtime: programs of the site
//!                              ▲          │ Events, Pods
//!  expose, token, status ──────┘          └─► what `site run` prints
//! ```
//! `site run` starts all of it in one process tree; [`demo`] starts two such sites and sends spans from one to the
//! other; [`expose`], [`token`] and [`status`] work through the Kubernetes API alone, so with any cluster.

pub mod access;
pub mod apply;
pub mod claim;
pub mod console;
pub mod demo;
pub mod diagnose;
pub mod expose;
mod http;
mod inject;
pub mod loader;
pub mod manifest;
pub mod records;
pub mod report;
pub mod run;
pub mod seal;
pub mod status;
pub mod token;
