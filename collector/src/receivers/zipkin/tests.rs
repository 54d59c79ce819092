use super::*;

#[test]
fn a_body_is_read_by_its_content_type() {
    let json = br#"[{"traceId": "1", "id": "2", "name": "n"}]"#;
    let mut headers = HeaderMap::new();
    assert_eq!(decode(&headers, json, false).unwrap().len(), 1);
    assert!(decode(&headers, b"{}", false).unwrap_err().contains("JSON"));
    headers.insert(
        header::CONTENT_TYPE,
        http::HeaderValue::from_static("application/x-protobuf"),
    );
    assert!(decode(&headers, json, false).unwrap_err().contains("protobuf"));
    assert!(decode(&headers, b"", false).unwrap().is_empty());
}
