use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

fn tag() -> impl Strategy<Value = KeyValue> {
    let key = "[a-z.]{1,12}";
    prop_oneof![
        (key, ".{0,20}").prop_map(|(key, value)| KeyValue::string(key, value)),
        (key, any::<bool>()).prop_map(|(key, value)| KeyValue::bool(key, value)),
        (key, any::<i64>()).prop_map(|(key, value)| KeyValue::int(key, value)),
        (key, -1e9..1e9f64).prop_map(|(key, value)| KeyValue::float(key, value)),
        (key, vec(any::<u8>(), 0..9)).prop_map(|(key, value)| KeyValue::binary(key, value)),
    ]
}

fn reference() -> impl Strategy<Value = SpanRef> {
    (any::<i64>(), 1..i64::MAX, any::<bool>()).prop_map(|(trace, span, child)| SpanRef {
        trace_id: model::trace_id(trace, 1),
        span_id: span.to_be_bytes().to_vec(),
        ref_type: if child {
            SpanRefType::ChildOf
        } else {
            SpanRefType::FollowsFrom
        } as i32,
    })
}

prop_compose! {
    fn log()(at in 0..i64::MAX / 2_000, fields in vec(tag(), 0..4)) -> Log {
        Log { timestamp: Some(Timestamp::from_micros(at)), fields }
    }
}

prop_compose! {
    fn span()(
        trace in any::<(i64, i64)>(), ids in (1..i64::MAX, any::<i64>()), name in ".{0,30}", flags in any::<u32>(),
        times in (0..i64::MAX / 2_000, 0..i64::MAX / 2_000), others in vec(reference(), 0..3),
        tags in vec(tag(), 0..20), logs in vec(log(), 0..3),
    ) -> Span {
        let trace_id = model::trace_id(trace.0, trace.1);
        let mut references = others;
        if ids.1 != 0 {
            let parent = SpanRef { trace_id: trace_id.clone(), span_id: ids.1.to_be_bytes().to_vec(), ref_type: 0 };
            references.insert(0, parent);
        }
        Span {
            trace_id, references, flags, tags, logs,
            span_id: ids.0.to_be_bytes().to_vec(),
            operation_name: name,
            start_time: Some(Timestamp::from_micros(times.0)),
            duration: Some(Duration::from_micros(times.1)),
            ..Span::default()
        }
    }
}

prop_compose! {
    fn any_batch()(service in ".{0,12}", tags in vec(tag(), 0..4), spans in vec(span(), 0..20)) -> Batch {
        Batch { spans, process: Some(Process { service_name: service, tags }) }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_written_is_read(batch in any_batch()) {
        for encoding in [Encoding::Compact, Encoding::Binary] {
            prop_assert_eq!(&decode_message(encoding, &encode_message(encoding, &batch)).unwrap(), &batch);
            prop_assert_eq!(&decode_batch(encoding, &encode_batch(encoding, &batch)).unwrap(), &batch);
        }
    }

    #[test]
    fn noise_never_panics(bytes in vec(any::<u8>(), 0..400)) {
        for encoding in [Encoding::Compact, Encoding::Binary] {
            let _ = decode_message(encoding, &bytes);
            let _ = decode_batch(encoding, &bytes);
        }
    }

    #[test]
    fn damaged_messages_never_panic(batch in any_batch(), at in any::<prop::sample::Index>(), to in any::<u8>(), cut in any::<prop::sample::Index>()) {
        for encoding in [Encoding::Compact, Encoding::Binary] {
            let mut bytes = encode_message(encoding, &batch);
            let place = at.index(bytes.len());
            bytes[place] = to;
            let _ = decode_message(encoding, &bytes);
            bytes.truncate(cut.index(bytes.len()));
            prop_assert!(decode_message(encoding, &bytes).is_err());
        }
    }
}

/// `emitBatch` with one span and one tag, put together by hand after the Thrift specification.
const BY_HAND: &[u8] = &[
    0x82, 0x81, 0x00, 9, b'e', b'm', b'i', b't', b'B', b'a', b't', b'c', b'h', // header, one-way
    0x1c, // arguments: field 1, struct
    0x1c, 0x18, 1, b's', 0x00, // batch.process: serviceName "s"
    0x19, 0x1c, // batch.spans: list of 1 struct
    0x16, 0x04, // traceIdLow 2
    0x16, 0x02, // traceIdHigh 1
    0x16, 0x06, // spanId 3
    0x16, 0x00, // parentSpanId 0
    0x18, 2, b'o', b'p', // operationName
    0x25, 0x02, // field 7: flags 1
    0x16, 0x14, // startTime 10
    0x16, 0x0a, // duration 5
    0x19, 0x1c, // tags: list of 1 struct
    0x18, 1, b'k', 0x15, 0x04, 0x31, // key "k", vType BOOL (2), field 5 true
    0x00, 0x00, // end of tag, end of span
    0x00, 0x00, // end of batch, end of arguments
];

#[test]
fn reads_a_datagram_made_by_hand() {
    let batch = decode_message(Encoding::Compact, BY_HAND).unwrap();
    let span = &batch.spans[0];
    assert_eq!(batch.process.unwrap().service_name, "s");
    assert_eq!(hex::encode(&span.trace_id), "00000000000000010000000000000002");
    assert_eq!(hex::encode(&span.span_id), "0000000000000003");
    assert_eq!(
        (span.operation_name.as_str(), span.flags, span.references.len()),
        ("op", 1, 0)
    );
    assert_eq!(
        (span.start_time.unwrap().micros(), span.duration.unwrap().micros()),
        (10, 5)
    );
    assert_eq!(span.tags, [KeyValue::bool("k", true)]);
}

#[test]
fn refuses_other_protocols_methods_and_kinds() {
    assert_eq!(
        decode_message(Encoding::Compact, b"GET / HTTP/1.1"),
        Err(ThriftError::Protocol(b'G'))
    );
    let mut other = BY_HAND.to_vec();
    other[4] = b'X';
    assert_eq!(
        decode_message(Encoding::Compact, &other),
        Err(ThriftError::Method("XmitBatch".into()))
    );
    other[1] = 0x41; // a reply
    assert_eq!(
        decode_message(Encoding::Compact, &other),
        Err(ThriftError::NotACall(2))
    );
    assert!(matches!(
        decode_message(Encoding::Binary, BY_HAND),
        Err(ThriftError::Protocol(0x82))
    ));
}

#[test]
fn refuses_a_list_larger_than_the_message() {
    let mut claims = BY_HAND[..19].to_vec();
    claims.extend([0x19, 0xfc, 0xff, 0xff, 0xff, 0xff, 0x0f]);
    let error = decode_message(Encoding::Compact, &claims).unwrap_err();
    assert_eq!(
        error,
        ThriftError::TooLong {
            what: "a list",
            claimed: u64::from(u32::MAX),
            remaining: 0
        }
    );
}

#[test]
fn refuses_endless_nesting_and_endless_numbers() {
    let mut deep = BY_HAND[..13].to_vec();
    deep.push(0x9c); // unknown field 9, struct …
    deep.extend(std::iter::repeat_n(0x1c, 5_000));
    assert_eq!(
        decode_message(Encoding::Compact, &deep),
        Err(ThriftError::TooDeep)
    );
    let lists = [&BY_HAND[..13], &[0x99], &[0x19; 5_000]].concat();
    assert_eq!(
        decode_message(Encoding::Compact, &lists),
        Err(ThriftError::TooDeep)
    );
    let number = [&[0x82, 0x81][..], &[0xff; 20]].concat();
    assert_eq!(
        decode_message(Encoding::Compact, &number),
        Err(ThriftError::Varint)
    );
}

#[test]
fn skips_unknown_fields_of_every_type() {
    let mut out = CompactWriter::new();
    out.message("emitBatch");
    out.enter();
    out.bool_field(20, true);
    out.field(21, Kind::Map);
    let mut bytes = out.finish();
    bytes.extend([2, 0x81, 1, b'a', 1, 1, b'b', 2]); // two entries: text → boolean
    bytes.extend([0x1a, 0x31, 1, 2, 1]); // a set of three booleans
    bytes.extend([0x17, 0, 0, 0, 0, 0, 0, 0, 0]); // a double
    bytes.extend([0x0c, 0x02]); // field 1 by its full number, struct
    bytes.extend(&BY_HAND[14..]);
    assert_eq!(decode_message(Encoding::Compact, &bytes).unwrap().spans.len(), 1);
}

#[test]
fn names_the_missing_field() {
    let mut short = BY_HAND.to_vec();
    let name = short.windows(2).position(|pair| pair == b"op").unwrap() - 2;
    short.drain(name..name + 4); // operationName gone: the next field's distance is one short, so parentSpanId repeats
    let error = decode_message(Encoding::Compact, &short).unwrap_err();
    assert!(
        matches!(
            error,
            ThriftError::WrongType { of: "Span", .. } | ThriftError::Missing { of: "Span", .. }
        ),
        "{error}"
    );
}

#[test]
fn reads_old_binary_headers() {
    let batch = decode_message(Encoding::Compact, BY_HAND).unwrap();
    let mut old = vec![0, 0, 0, 9];
    old.extend(b"emitBatch");
    old.extend([4, 0, 0, 0, 0, 12, 0, 1]);
    old.extend(encode_batch(Encoding::Binary, &batch));
    old.push(0);
    assert_eq!(decode_message(Encoding::Binary, &old).unwrap(), batch);
}
