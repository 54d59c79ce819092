use super::*;

#[test]
fn a_body_is_read_as_it_is_encoded() {
    let json = br#"[{"traceId": "1", "id": "2", "name": "n"}]"#;
    for encoding in [Encoding::Json, Encoding::JsonV1] {
        assert_eq!(decode(encoding, json, false).unwrap().len(), 1);
        assert!(decode(encoding, b"{}", false).unwrap_err().contains("JSON"));
    }
    let proto = Encoding::Proto;
    assert!(decode(proto, json, false).unwrap_err().contains("protobuf"));
    assert!(decode(proto, b"", false).unwrap().is_empty());
}

#[test]
fn parameters_of_the_content_type_do_not_matter() {
    let mut headers = HeaderMap::new();
    assert_eq!(content_type(&headers), "");
    let value = http::HeaderValue::from_static("application/x-protobuf; charset=utf-8");
    headers.insert(header::CONTENT_TYPE, value);
    assert_eq!(content_type(&headers), "application/x-protobuf");
}
