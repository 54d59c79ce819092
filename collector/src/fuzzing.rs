//! Entrances for `fuzz/`: what may stand in files that were damaged, or that others wrote.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};

use crate::durable;
use crate::receivers::otlp::http::decompress;
use crate::unary::Packing;

/// A queue's state and its segments, as a disk may give them back: nothing panics, and what is kept lies within them.
pub fn queue(state: &[u8], segments: &[&[u8]]) {
    durable::fuzz(state, segments);
}

/// How compressed bodies and messages are named.
pub const COMPRESSIONS: [&str; 6] = ["gzip", "zlib", "deflate", "zstd", "snappy", "x-snappy-framed"];

/// What a compressed body over HTTP and a compressed message over gRPC hold, each at most so many bytes; nothing where
/// they hold more, or nothing that can be read.
pub fn unpacked(compression: &'static str, body: &[u8], most: usize) -> [Option<Bytes>; 2] {
    let name = HeaderValue::from_static(compression);
    let headers = HeaderMap::from_iter([(header::CONTENT_ENCODING, name.clone())]);
    let of_http = decompress(&headers, Bytes::copy_from_slice(body), most).ok();
    let headers = HeaderMap::from_iter([(http::HeaderName::from_static("grpc-encoding"), name)]);
    let packing = Packing::of(&headers).ok().flatten();
    [
        of_http,
        packing.and_then(|packing| packing.unpack(body, most).ok()),
    ]
}

/// A message as our own clients compress it over gRPC; nothing for a compression that gRPC does not have.
pub fn packed(compression: &'static str, message: &[u8]) -> Option<Bytes> {
    let name = HeaderValue::from_static(compression);
    let headers = HeaderMap::from_iter([(http::HeaderName::from_static("grpc-encoding"), name)]);
    Packing::of(&headers).ok()??.pack(message).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_unpacked_is_bounded_and_what_was_packed(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            text in "[ab]{0,2000}",
            most in 0_usize..3000,
        ) {
            for name in COMPRESSIONS {
                for body in [bytes.as_slice(), text.as_bytes()] {
                    for out in unpacked(name, body, most).into_iter().flatten() {
                        prop_assert!(out.len() <= most);
                    }
                    let Some(packed) = packed(name, body) else { continue };
                    // Cut anywhere it is refused, or what was whole of it.
                    let cut = packed.slice(..packed.len() * most / 3000);
                    for out in unpacked(name, &cut, most).into_iter().flatten() {
                        prop_assert!(body.starts_with(&out));
                    }
                    for out in unpacked(name, &packed, most) {
                        prop_assert_eq!(out.as_deref(), (body.len() <= most).then_some(body), "{}", name);
                    }
                }
            }
        }
    }
}
