//! Just enough of OTLP in protobuf and of HTTP/1.1: numbered spans out, their numbers back.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use super::Outcome;

fn varint(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn delimited(out: &mut Vec<u8>, field: usize, bytes: &[u8]) {
    varint(out, field << 3 | 2);
    varint(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// An export request of spans whose ids are these numbers.
pub(super) fn request(numbers: std::ops::Range<u64>) -> Vec<u8> {
    let mut scope = Vec::new();
    for number in numbers {
        let mut span = Vec::new();
        delimited(&mut span, 1, &[7; 16]);
        delimited(&mut span, 2, &number.to_be_bytes());
        delimited(
            &mut span,
            5,
            format!("item {number} with a name that takes some room in its batch").as_bytes(),
        );
        delimited(&mut scope, 2, &span);
    }
    let (mut resource, mut out) = (Vec::new(), Vec::new());
    delimited(&mut resource, 2, &scope);
    delimited(&mut out, 1, &resource);
    out
}

fn fields(mut bytes: &[u8]) -> Vec<(usize, &[u8])> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let Some(key) = take_varint(&mut bytes) else { break };
        match key & 7 {
            0 => {
                take_varint(&mut bytes);
            }
            1 => bytes = bytes.get(8..).unwrap_or_default(),
            2 => {
                let length = take_varint(&mut bytes).unwrap_or(0).min(bytes.len());
                let (value, rest) = bytes.split_at(length);
                found.push((key >> 3, value));
                bytes = rest;
            }
            _ => bytes = bytes.get(4..).unwrap_or_default(),
        }
    }
    found
}

fn take_varint(bytes: &mut &[u8]) -> Option<usize> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// The numbers of a request's spans.
pub(super) fn numbers(request: &[u8]) -> Vec<u64> {
    let of = |bytes, number| {
        fields(bytes)
            .into_iter()
            .filter(move |(n, _)| *n == number)
            .map(|(_, v)| v)
    };
    of(request, 1)
        .flat_map(|resource| of(resource, 2))
        .flat_map(|scope| of(scope, 2))
        .filter_map(|span| Some(u64::from_be_bytes(of(span, 2).next()?.try_into().ok()?)))
        .collect()
}

/// The first line of a message and its body.
pub(super) fn read(reader: &mut BufReader<TcpStream>) -> Outcome<Option<(String, Vec<u8>)>> {
    let mut first = String::new();
    if reader.read_line(&mut first)? == 0 {
        return Ok(None);
    }
    let mut length = 0;
    loop {
        let mut line = String::new();
        anyhow::ensure!(reader.read_line(&mut line)? > 0, "the head is cut off");
        if line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse()?;
        }
    }
    anyhow::ensure!(length <= 64 << 20, "{length} bytes");
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Some((first, body)))
}

/// Posts a request on an open connection and gives the status.
pub(super) fn post(stream: &mut BufReader<TcpStream>, body: &[u8]) -> Outcome<u16> {
    let head = format!(
        "POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut message = head.into_bytes();
    message.extend_from_slice(body);
    stream.get_mut().write_all(&message)?;
    let (first, _) = read(stream)?.ok_or_else(|| anyhow::anyhow!("no answer"))?;
    let status = first
        .split_whitespace()
        .nth(1)
        .and_then(|status| status.parse().ok());
    status.ok_or_else(|| anyhow::anyhow!("not HTTP: {first}"))
}
