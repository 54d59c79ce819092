//! Exporters: `Batch` → `Outcome`.
