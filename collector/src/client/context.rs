//! The request that the data being sent came with, for authenticators that copy from it.

use std::future::Future;
use std::sync::Arc;

use crate::batch::Context;

tokio::task_local! {
    static CURRENT: Arc<Context>;
}

/// Runs an export whose data came with a request.
pub(crate) async fn with_context<T>(context: Option<Arc<Context>>, export: impl Future<Output = T>) -> T {
    match context {
        Some(context) => CURRENT.scope(context, export).await,
        None => export.await,
    }
}

/// The request that the data came with, while an export runs.
pub(crate) fn current() -> Option<Arc<Context>> {
    CURRENT.try_with(Arc::clone).ok()
}
