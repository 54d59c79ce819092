//! What callers and proxies say: the PROXY header, a trace, a proxy's URL and answer.
#![no_main]

use arbitrary::Arbitrary;
use karez_router::fuzzing;
use karez_router::proxy_protocol::{Parsed, parse};
use libfuzzer_sys::fuzz_target;

#[derive(Debug, Arbitrary)]
enum Said<'a> {
    Header(&'a [u8]),
    Trace(&'a str),
    Proxy {
        url: &'a str,
        except: &'a str,
        host: &'a str,
        port: u16,
        answer: &'a [u8],
    },
}

fuzz_target!(|said: Said<'_>| match said {
    Said::Header(bytes) => {
        if let Ok(Parsed::Whole { length, .. }) = parse(bytes) {
            assert!(length <= bytes.len());
            // It is whole no sooner.
            assert_eq!(parse(&bytes[..length - 1]), Ok(Parsed::More));
        }
    }
    Said::Trace(text) => fuzzing::trace(text),
    Said::Proxy {
        url,
        except,
        host,
        port,
        answer,
    } => fuzzing::proxy(url, except, host, port, answer),
});
