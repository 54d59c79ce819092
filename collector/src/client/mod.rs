//! Clients: connections dialled through `karez-net`, with the document's TLS, headers and credentials.

mod dial;
mod grpc;
mod http;

pub use dial::{Dial, Stream};
pub use grpc::{CallError, GrpcClient};
pub use http::{Answer, HttpClient, HttpError};
