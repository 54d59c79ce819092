//! Expectations from Prometheus' documentation of relabelling and the behaviour of its own examples.

use super::*;

fn labels(text: &[(&str, &str)]) -> Labels {
    Labels::of(text.iter().copied())
}

fn rules_of(yaml: &str) -> Vec<Rule> {
    let origin = karez_document::Origin::file("r.yaml");
    let node = karez_document::yaml::parse(yaml, &origin).unwrap().remove(0);
    let mut diagnoses = Vec::new();
    let rules = rules(Some(&node), "relabel_configs", &mut diagnoses);
    assert_eq!(diagnoses, []);
    rules
}

fn expect(yaml: &str, before: &[(&str, &str)], after: Option<&[(&str, &str)]>) {
    let found = relabel(&rules_of(yaml), &labels(before));
    assert_eq!(found, after.map(labels), "{yaml}");
}

#[test]
fn each_action_does_what_prometheus_does() {
    let abc: &[(&str, &str)] = &[("a", "foo"), ("b", "bar"), ("c", "baz")];
    expect(
        "[{source_labels: [a], regex: 'f(.*)', target_label: d, separator: ';', replacement: 'ch$1-ch$1'}]",
        abc,
        Some(&[("a", "foo"), ("b", "bar"), ("c", "baz"), ("d", "choo-choo")]),
    );
    expect(
        "[{source_labels: [a, b], regex: 'f(.*);(.*)r', target_label: a, replacement: 'b${1}${2}m'},
          {source_labels: [c, a], regex: '(b).*b(.*)ba(.*)', target_label: d, replacement: '$1$2$2$3'}]",
        &[("a", "foo"), ("b", "bar"), ("c", "baz")],
        Some(&[("a", "boobam"), ("b", "bar"), ("c", "baz"), ("d", "boooom")]),
    );
    expect("[{source_labels: [a], regex: '.*o.*', action: drop}]", abc, None);
    expect(
        "[{source_labels: [a], regex: '.*b.*', action: drop}]",
        abc,
        Some(abc),
    );
    expect("[{source_labels: [a], regex: 'f', action: keep}]", abc, None);
    expect(
        "[{source_labels: [a], regex: 'foo', action: Keep}]",
        abc,
        Some(abc),
    );
    expect(
        "[{source_labels: [a], regex: 'no-match', action: drop}]",
        abc,
        Some(abc),
    );
    expect(
        "[{source_labels: [missing], regex: '', action: keep}]",
        abc,
        Some(abc),
    );
    expect(
        "[{source_labels: [c], target_label: d, action: hashmod, modulus: 1000}]",
        abc,
        Some(&[("a", "foo"), ("b", "bar"), ("c", "baz"), ("d", "976")]),
    );
    expect(
        "[{source_labels: [c], target_label: d, action: hashmod, modulus: 1000}]",
        &[("c", "foo\nbar")],
        Some(&[("c", "foo\nbar"), ("d", "734")]),
    );
}

#[test]
fn names_are_mapped_dropped_and_values_compared() {
    expect(
        "[{action: labelmap, regex: '(b.*)', replacement: 'bar_${1}'}]",
        &[("a", "foo"), ("b1", "bar"), ("b2", "baz")],
        Some(&[
            ("a", "foo"),
            ("b1", "bar"),
            ("b2", "baz"),
            ("bar_b1", "bar"),
            ("bar_b2", "baz"),
        ]),
    );
    expect(
        "[{action: labelmap, regex: '__meta_(my.*)'}]",
        &[
            ("__meta_my_bar", "aaa"),
            ("__meta_my_baz", "bbb"),
            ("__meta_other", "ccc"),
        ],
        Some(&[
            ("__meta_my_bar", "aaa"),
            ("__meta_my_baz", "bbb"),
            ("__meta_other", "ccc"),
            ("my_bar", "aaa"),
            ("my_baz", "bbb"),
        ]),
    );
    expect(
        "[{action: labeldrop, regex: '(b.*)'}]",
        &[("a", "1"), ("b1", "2")],
        Some(&[("a", "1")]),
    );
    expect(
        "[{action: labelkeep, regex: '(b.*)'}]",
        &[("a", "1"), ("b1", "2")],
        Some(&[("b1", "2")]),
    );
    expect(
        "[{source_labels: [foo], target_label: up, action: uppercase}, {source_labels: [foo], target_label: low, action: lowercase}]",
        &[("foo", "bAr123Foo")],
        Some(&[("foo", "bAr123Foo"), ("low", "bar123foo"), ("up", "BAR123FOO")]),
    );
    let ports: &[(&str, &str)] = &[("__port1", "1234"), ("__port2", "5678"), ("__same", "1234")];
    expect(
        "[{source_labels: [__port1], target_label: __same, action: keepequal}]",
        ports,
        Some(ports),
    );
    expect(
        "[{source_labels: [__port2], target_label: __same, action: keepequal}]",
        ports,
        None,
    );
    expect(
        "[{source_labels: [__port1], target_label: __same, action: dropequal}]",
        ports,
        None,
    );
    expect(
        "[{source_labels: [__port2], target_label: __same, action: dropequal}]",
        ports,
        Some(ports),
    );
}

#[test]
fn replace_knows_the_corners() {
    // No match: nothing happens. A match that gives nothing takes the label away.
    expect(
        "[{source_labels: [a], regex: 'x(.*)', target_label: a}]",
        &[("a", "foo")],
        Some(&[("a", "foo")]),
    );
    expect(
        "[{source_labels: [a], regex: 'foo', target_label: a}]",
        &[("a", "foo")],
        Some(&[]),
    );
    expect(
        "[{source_labels: [a], regex: 'f|foo|fo', target_label: b, replacement: '${0}'}]",
        &[("a", "foo")],
        Some(&[("a", "foo"), ("b", "foo")]),
    );
    // A constant without a source.
    expect(
        "[{target_label: env, replacement: prod}]",
        &[],
        Some(&[("env", "prod")]),
    );
    expect("[{target_label: a, replacement: ''}]", &[("a", "1")], Some(&[]));
    // The name of the target from the match.
    expect(
        "[{source_labels: [a], regex: 'some-([^-]+)-([^,]+)', target_label: '${1}', replacement: '${2}'}]",
        &[("a", "some-name-value")],
        Some(&[("a", "some-name-value"), ("name", "value")]),
    );
    expect(
        "[{source_labels: [a], regex: 'some-([^-]+)-([^,]+)', target_label: '${3}', replacement: '${2}'}]",
        &[("a", "some-name-value")],
        Some(&[("a", "some-name-value")]),
    );
    // The address with another port, as nearly every configuration has it.
    expect(
        r"[{source_labels: [__address__, port], action: replace, regex: '([^:]+)(?::\d+)?;(\d+)', replacement: '$1:$2', target_label: __address__}]",
        &[("__address__", "10.0.0.1:80"), ("port", "9100")],
        Some(&[("__address__", "10.0.0.1:9100"), ("port", "9100")]),
    );
    // A dot matches the end of a line.
    expect(
        "[{source_labels: [a], regex: 'x.y', action: keep}]",
        &[("a", "x\ny")],
        Some(&[("a", "x\ny")]),
    );
}

#[test]
fn says_everything_that_is_wrong_with_its_line() {
    let yaml = "- action: hashmod
  target_label: a
- action: replace
- action: labeldrop
  source_labels: [a]
- action: keepequal
  target_label: b
  regex: x
- regex: '('
  action: keep
- action: keeep
- sourcelabels: [a]
  action: keep
- action: lowercase
  target_label: a
  replacement: b
";
    let origin = karez_document::Origin::file("r.yaml");
    let node = karez_document::yaml::parse(yaml, &origin).unwrap().remove(0);
    let mut diagnoses = Vec::new();
    assert!(rules(Some(&node), "r", &mut diagnoses).len() <= 1);
    let said: Vec<String> = diagnoses
        .iter()
        .map(|d| format!("{} {}", d.place.line.unwrap(), d.key))
        .collect();
    assert_eq!(
        said,
        [
            "1 r[0].modulus",
            "3 r[1].target_label",
            "5 r[2].source_labels",
            "8 r[3].regex",
            "9 r[4].regex",
            "11 r[5].action",
            "12 r[6].sourcelabels",
            "16 r[7].replacement",
        ]
    );
}

#[test]
fn cases_are_changed_letter_by_letter() {
    expect(
        "[{source_labels: [a], target_label: up, action: uppercase}, {source_labels: [a], target_label: low, action: lowercase}]",
        &[("a", "straße ΟΔΟΣ İ ᾳ")],
        Some(&[
            ("a", "straße ΟΔΟΣ İ ᾳ"),
            ("low", "straße οδοσ i ᾳ"),
            ("up", "STRAßE ΟΔΟΣ İ ᾼ"),
        ]),
    );
}
