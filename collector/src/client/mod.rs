//! Clients: connections dialled through `karez-net`, with the document's TLS, headers and credentials.

mod context;
mod dial;
mod fetch;
mod gather;
mod grpc;
mod http;
mod proxy;

pub(crate) use context::{current, with_context};
pub use dial::{Dial, Stream};
pub(crate) use fetch::{FetchError, fetch};
pub use grpc::{CallError, GrpcClient};
pub use http::{Answer, HttpClient, HttpError};
pub use proxy::Proxy;
