//! An authoritative name server, small, whose records a test changes.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;

use super::Outcome;

/// What a name may have.
#[derive(Clone, Debug)]
pub(crate) enum Record {
    A(Ipv4Addr),
    Srv { target: String, port: u16 },
}

impl Record {
    fn kind(&self) -> u16 {
        match self {
            Record::A(_) => 1,
            Record::Srv { .. } => 33,
        }
    }

    fn data(&self) -> Vec<u8> {
        match self {
            Record::A(address) => address.octets().to_vec(),
            Record::Srv { target, port } => {
                let mut data = vec![0, 1, 0, 1];
                data.extend_from_slice(&port.to_be_bytes());
                data.extend_from_slice(&encoded(target));
                data
            }
        }
    }
}

type Records = BTreeMap<String, Vec<Record>>;

/// The server. It serves until the tests' process ends.
#[derive(Clone, Default)]
pub(crate) struct Dns {
    records: Arc<Mutex<Records>>,
}

impl Dns {
    /// Serves at this address.
    pub(crate) fn start(at: SocketAddr) -> Outcome<Self> {
        let socket = UdpSocket::bind(at).with_context(|| at.to_string())?;
        let dns = Dns::default();
        let records = dns.records.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 1500];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let known = records.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(answer) = answer(&buffer[..length], &known) {
                    // Who asked asks again.
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        Ok(dns)
    }

    /// From now on the name has these records and no others.
    pub(crate) fn set(&self, name: &str, records: Vec<Record>) {
        let mut known = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(name.to_owned(), records);
    }
}

fn encoded(name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        out.push(label.len() as u8);
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
    out
}

/// The answer to a query of one question; nothing for what is none.
fn answer(query: &[u8], known: &Records) -> Option<Vec<u8>> {
    let (mut at, mut labels) = (12, Vec::new());
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(query.get(at..at + length)?).to_ascii_lowercase());
        at += length;
    }
    let question = query.get(12..at + 4)?;
    let kind = u16::from_be_bytes([question[question.len() - 4], question[question.len() - 3]]);
    let records = known.get(&labels.join("."));
    let found: Vec<&Record> = records
        .into_iter()
        .flatten()
        .filter(|record| record.kind() == kind)
        .collect();
    // An authoritative answer; a name that is not there does not exist.
    let code = if records.is_none() { 3 } else { 0 };
    let mut out = query.get(..2)?.to_vec();
    out.extend_from_slice(&[0x84 | query[2] & 1, code, 0, 1]);
    out.extend_from_slice(&u16::try_from(found.len()).ok()?.to_be_bytes());
    out.extend_from_slice(&[0, 0, 0, 0]);
    out.extend_from_slice(question);
    for record in found {
        let data = record.data();
        // The name is the question's, which stands at byte 12.
        out.extend_from_slice(&[0xc0, 12]);
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(&[0, 1, 0, 0, 0, 0]);
        out.extend_from_slice(&u16::try_from(data.len()).ok()?.to_be_bytes());
        out.extend_from_slice(&data);
    }
    Some(out)
}
