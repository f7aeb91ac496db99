//! Collector `os`: os-release(5) below --path.rootfs.

use std::collections::HashMap;
use std::io;

use time::format_description::well_known::Iso8601;
use time::{Date, Time};

use super::super::proc_file::read_once;
use super::super::{HostError, Paths};
use super::Found;
use crate::model::node::OsRelease;
use crate::sources::clean;

/// The first that is there counts.
const FILES: [&str; 2] = ["etc/os-release", "usr/lib/os-release"];
/// Larger than any such file, which a person writes.
const LIMIT: usize = 64 << 10;

pub(super) fn read(paths: &Paths, os: &mut OsRelease) -> Result<Found, HostError> {
    for name in FILES {
        let path = paths.rootfs.join(name);
        let read = || -> io::Result<Vec<u8>> {
            let bytes = read_once(&path)?;
            if bytes.len() > LIMIT {
                return Err(io::Error::from(io::ErrorKind::FileTooLarge));
            }
            Ok(bytes)
        };
        match read() {
            Ok(bytes) => {
                fill(os, &String::from_utf8_lossy(&bytes));
                return Ok(Found::All);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(HostError::Read { path, source }),
        }
    }
    Ok(Found::Nothing)
}

fn fill(os: &mut OsRelease, text: &str) {
    let values = parse(text);
    let get = |name: &str| values.get(name).map(String::as_str).unwrap_or_default();
    for (place, name) in [
        (&mut os.build_id, "BUILD_ID"),
        (&mut os.id, "ID"),
        (&mut os.id_like, "ID_LIKE"),
        (&mut os.image_id, "IMAGE_ID"),
        (&mut os.image_version, "IMAGE_VERSION"),
        (&mut os.name, "NAME"),
        (&mut os.pretty_name, "PRETTY_NAME"),
        (&mut os.variant, "VARIANT"),
        (&mut os.variant_id, "VARIANT_ID"),
        (&mut os.version, "VERSION"),
        (&mut os.version_codename, "VERSION_CODENAME"),
        (&mut os.version_id, "VERSION_ID"),
    ] {
        clean::refill(place, get(name));
    }
    os.version_number = version(get("VERSION_ID"));
    os.support_end = Date::parse(get("SUPPORT_END"), &Iso8601::DATE)
        .ok()
        .map(|date| date.with_time(Time::MIDNIGHT).assume_utc().unix_timestamp());
}

/// Lines of NAME=value, the value as a shell would read it, without its expansions.
fn parse(text: &str) -> HashMap<&str, String> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.trim_end(), unquote(value)))
        .collect()
}

/// Takes quotes away and the backslashes that protect a character; a comment may follow a blank.
fn unquote(raw: &str) -> String {
    let mut value = String::with_capacity(raw.len());
    let mut quote = None;
    let mut characters = raw.chars().peekable();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (None, '"' | '\'') => quote = Some(character),
            (Some(open), _) if open == character => quote = None,
            (None | Some('"'), '\\') => value.extend(characters.next()),
            (None, ' ' | '\t') if characters.peek().is_none_or(|next| *next == '#') => break,
            _ => value.push(character),
        }
    }
    value
}

/// The number that a version begins with, such as 24.04 of 24.04.1.
fn version(id: &str) -> Option<f64> {
    let mut point = false;
    let end = id
        .find(|c: char| {
            let second = c == '.' && std::mem::replace(&mut point, true);
            second || !(c.is_ascii_digit() || c == '.')
        })
        .unwrap_or(id.len());
    let number = id.get(..end).filter(|number| number.starts_with(|c: char| c.is_ascii_digit()))?;
    number.parse().ok().filter(|number| *number > 0.0)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_are_unquoted() {
        let values = parse(
            "# ID=no\nID=debian\nNAME=\"Debian GNU/Linux\"\nVARIANT='a \"b\"'\nPRETTY_NAME=\"a \\\"b\\\" \\$c\"\n\nBAD\nX= # y\n",
        );
        assert_eq!(values["ID"], "debian");
        assert_eq!(values["NAME"], "Debian GNU/Linux");
        assert_eq!(values["VARIANT"], "a \"b\"");
        assert_eq!(values["PRETTY_NAME"], "a \"b\" $c");
        assert_eq!(values["X"], "");
        assert_eq!(values.len(), 5);
    }

    #[test]
    fn the_first_file_counts_and_none_is_nothing() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths { rootfs: root.path().to_owned(), ..Paths::default() };
        let mut os = OsRelease::default();
        assert_eq!(read(&paths, &mut os).unwrap(), Found::Nothing);
        fs::create_dir_all(root.path().join("usr/lib")).unwrap();
        fs::write(root.path().join("usr/lib/os-release"), "ID=b\nSUPPORT_END=2038-01-19\nVERSION_ID=40\n")
            .unwrap();
        assert_eq!(read(&paths, &mut os).unwrap(), Found::All);
        assert_eq!(
            (os.id.as_str(), os.version_number, os.support_end),
            ("b", Some(40.0), Some(2_147_472_000))
        );
        fs::create_dir(root.path().join("etc")).unwrap();
        fs::write(root.path().join("etc/os-release"), "ID=a\n").unwrap();
        read(&paths, &mut os).unwrap();
        assert_eq!((os.id.as_str(), os.version_number, os.support_end), ("a", None, None));
    }

    #[test]
    fn a_pipe_keeps_nobody_waiting() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        let pipe = root.path().join("etc/os-release");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
        let paths = Paths { rootfs: root.path().to_owned(), ..Paths::default() };
        let error = read(&paths, &mut OsRelease::default()).unwrap_err().to_string();
        assert!(error.contains("etc/os-release"), "{error}");
    }

    #[test]
    fn versions_begin_with_a_number() {
        for (id, number) in [
            ("12", Some(12.0)),
            ("24.04.1", Some(24.04)),
            ("7.", Some(7.0)),
            ("40-rc1", Some(40.0)),
            ("", None),
            ("rolling", None),
            (".5", None),
        ] {
            assert_eq!(version(id), number, "{id}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_an_answer(text in "([A-Z]{0,4}=[\"'\\\\# a-z0-9.]{0,12}\n){0,4}|\\PC{0,40}") {
            fill(&mut OsRelease::default(), &text);
            let _ = version(&text);
        }
    }
}
