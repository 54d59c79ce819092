//! `google.rpc.Status` with its retry delay.

use std::time::Duration;

use prost::Message;
use tonic::{Code, Status};

use crate::component::Refusal;

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
pub struct RpcStatus {
    /// A gRPC code.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// Why.
    #[prost(string, tag = "2")]
    pub message: String,
    /// More about it.
    #[prost(message, repeated, tag = "3")]
    pub details: Vec<Any>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
pub struct Any {
    /// Ends with the message's full name.
    #[prost(string, tag = "1")]
    pub type_url: String,
    /// Its encoding.
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<Delay>,
}

#[derive(Clone, PartialEq, Message)]
struct Delay {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";

/// The status that a refusal is told by.
pub fn refusal_status(refusal: &Refusal) -> Status {
    let code = if refusal.retryable {
        Code::Unavailable
    } else {
        Code::Internal
    };
    let Some(after) = refusal.after else {
        return Status::new(code, &refusal.reason);
    };
    let seconds = i64::try_from(after.as_secs()).unwrap_or(i64::MAX);
    let nanos = i32::try_from(after.subsec_nanos()).unwrap_or(0);
    let info = RetryInfo {
        retry_delay: Some(Delay { seconds, nanos }),
    };
    let details = vec![Any {
        type_url: RETRY_INFO.to_owned(),
        value: info.encode_to_vec(),
    }];
    let status = RpcStatus {
        code: code as i32,
        message: refusal.reason.clone(),
        details,
    };
    Status::with_details(code, &refusal.reason, status.encode_to_vec().into())
}

/// When a status asks to be tried again, if it says so.
pub fn retry_delay(status: &Status) -> Option<Duration> {
    let details = RpcStatus::decode(status.details()).ok()?.details;
    let info = details
        .iter()
        .find(|any| any.type_url.ends_with("google.rpc.RetryInfo"))?;
    let delay = RetryInfo::decode(info.value.as_slice()).ok()?.retry_delay?;
    Some(Duration::new(
        u64::try_from(delay.seconds).ok()?,
        u32::try_from(delay.nanos).ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusals_delay_arrives() {
        let mut refusal = Refusal::later("busy");
        assert_eq!(retry_delay(&refusal_status(&refusal)), None);
        refusal.after = Some(Duration::from_millis(1500));
        assert_eq!(retry_delay(&refusal_status(&refusal)), refusal.after);
        assert_eq!(refusal_status(&Refusal::never("no")).code(), Code::Internal);
    }
}
