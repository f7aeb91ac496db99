//! `collect[]` and `exclude[]` of `/compat/node`, as node_exporter takes them.

use std::borrow::Cow;

use crate::model::node::{NodeCollector, Selection};

/// How much of an unknown name an error shows.
const EXCERPT: usize = 40;

/// The collectors that a query asks for.
///
/// Any of them can be collected, those that are off by default too. Excluding one that there is not is no error: a
/// scrape configuration for node_exporter may name others of its collectors. Other parameters are ignored.
///
/// # Errors
/// What is wrong, in one line.
pub(super) fn selection(query: &str) -> Result<Selection, Cow<'static, str>> {
    let mut collected = Selection::default();
    let mut remaining = Selection::defaults();
    let (mut collects, mut excludes) = (false, false);
    for pair in query.split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        match decode(key).as_ref() {
            "collect[]" => {
                collects = true;
                let name = decode(value);
                collected.insert(NodeCollector::find(&name).ok_or_else(|| unknown(&name))?);
            }
            "exclude[]" => {
                excludes = true;
                NodeCollector::find(&decode(value))
                    .into_iter()
                    .for_each(|collector| remaining.remove(collector));
            }
            _ => {}
        }
    }
    match (collects, excludes) {
        (true, true) => Err("collect[] and exclude[] cannot be combined; give one of them".into()),
        (true, false) => Ok(collected),
        (false, _) => Ok(remaining),
    }
}

fn unknown(name: &str) -> Cow<'static, str> {
    let name: String = name.chars().take(EXCERPT).collect();
    let known = NodeCollector::ALL.map(NodeCollector::name).join(" ");
    format!("no collector {name:?} in collect[]; there are: {known}").into()
}

/// Undoes percent-encoding, and `+` for a blank (URL Standard, application/x-www-form-urlencoded). What is no encoding
/// stays as it is.
fn decode(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return text.into();
    }
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let byte = match rest {
            [b'%', high, low, ..] => {
                hexadecimal(*high).zip(hexadecimal(*low)).map(|(high, low)| high * 16 + low)
            }
            _ => None,
        };
        rest = if byte.is_some() { &tail[2..] } else { tail };
        plain.push(byte.unwrap_or(if *first == b'+' { b' ' } else { *first }));
    }
    String::from_utf8_lossy(&plain).into_owned().into()
}

fn hexadecimal(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(query: &str) -> Result<String, String> {
        match selection(query) {
            Ok(selection) => Ok(selection.iter().map(NodeCollector::name).collect::<Vec<_>>().join(" ")),
            Err(reason) => Err(reason.into_owned()),
        }
    }

    #[test]
    fn collectors_are_named_or_left_out() {
        let all = names("").unwrap();
        assert!(all.starts_with("conntrack cpu diskstats") && !all.contains("tcpstat"));
        assert_eq!(names("a=b&x&"), Ok(all.clone()));
        assert_eq!(names("collect[]=cpu&collect[]=tcpstat&collect[]=cpu"), Ok("cpu tcpstat".to_owned()));
        assert_eq!(names("collect%5B%5D=udp_queues&a=%"), Ok("udp_queues".to_owned()));
        assert_eq!(names("collect%5b%5d=%63pu"), Ok("cpu".to_owned()));
        assert_eq!(names("exclude[]=conntrack&exclude[]=hwmon"), Ok(all.replacen("conntrack ", "", 1)));
    }

    #[test]
    fn what_is_wrong_is_said_in_one_line() {
        let combined = "collect[] and exclude[] cannot be combined; give one of them";
        assert_eq!(names("collect[]=cpu&exclude[]=stat"), Err(combined.to_owned()));
        for (query, name) in [
            ("collect[]=hwmon", "\"hwmon\""),
            ("collect[]", "\"\""),
            ("collect[]=a%0Ab+c%", "\"a\\nb c%\""),
            ("collect[]=%ff", "\"\u{fffd}\""),
        ] {
            let reason = names(query).unwrap_err();
            assert!(
                reason.starts_with(&format!("no collector {name} in collect[]; there are: conntrack ")),
                "{reason}"
            );
            assert!(!reason.contains('\n'));
        }
        assert!(names(&format!("collect[]={}", "x".repeat(9000))).unwrap_err().len() < 300);
    }

    proptest! {
        #[test]
        fn any_query_is_an_answer_or_one_short_line(query in "((collect|exclude)(\\[\\]|%5B%5D)=[a-z%+0-9]{0,6}&?){0,3}|\\PC{0,40}") {
            if let Err(reason) = selection(&query) {
                prop_assert!(!reason.contains('\n') && reason.len() < 500);
            }
        }
    }
}
