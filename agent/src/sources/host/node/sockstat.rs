//! Collector `sockstat`: /proc/net/sockstat and sockstat6 as they are.

use super::super::proc_file::{Bad, ProcFile, number};
use super::super::{HostError, Paths};
use crate::model::node::Named;

/// Keeps both files open.
#[derive(Default)]
pub(super) struct Reader {
    ipv4: ProcFile,
    ipv6: ProcFile,
}

impl Reader {
    pub(super) fn read(&mut self, paths: &Paths, counts: &mut Named) -> Result<(), HostError> {
        counts.clear();
        let page_bytes = rustix::param::page_size() as u64;
        for (file, name) in [(&mut self.ipv4, "net/sockstat"), (&mut self.ipv6, "net/sockstat6")] {
            match file.parse_whole(&paths.procfs, name, |text| parse(text, page_bytes, counts)) {
                // A kernel that runs without this IP version.
                Ok(()) | Err(HostError::Unavailable { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// `TCP: inuse 4 orphan 0 tw 0 alloc 4 mem 0`: memory `mem` is in pages, `memory` in bytes.
fn parse(text: &str, page_bytes: u64, counts: &mut Named) -> Result<(), Bad> {
    for (index, line) in text.lines().enumerate() {
        let bad = || Bad::Line(index + 1, "`protocol: key count …`");
        let (protocol, rest) = line.split_once(':').ok_or_else(bad)?;
        let mut words = rest.split_ascii_whitespace();
        while let Some(key) = words.next() {
            let count: u64 = number(words.next()).ok_or_else(bad)?;
            if !matches!(key, "inuse" | "orphan" | "tw" | "alloc" | "mem" | "memory" | "used") {
                continue;
            }
            counts.push(&[protocol, "_", key], count);
            if key == "mem" {
                counts.push(&[protocol, "_mem_bytes"], count.checked_mul(page_bytes).ok_or_else(bad)?);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn protocols_and_keys_make_the_names() {
        let mut counts = Named::default();
        parse("sockets: used 20\nTCP: inuse 4 mem 2\nFRAG: inuse 0 memory 7 odd 1\n", 4096, &mut counts)
            .unwrap();
        let expected = [
            ("sockets_used", 20),
            ("TCP_inuse", 4),
            ("TCP_mem", 2),
            ("TCP_mem_bytes", 8192),
            ("FRAG_inuse", 0),
            ("FRAG_memory", 7),
        ];
        assert_eq!(counts.iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_bad_line_is_named() {
        for (text, line) in [("TCP inuse 1\n", 1), ("TCP: inuse 1\nUDP: inuse\n", 2), ("TCP: mem x\n", 1)] {
            let outcome = parse(text, 4096, &mut Named::default());
            assert_eq!(outcome, Err(Bad::Line(line, "`protocol: key count …`")), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_an_answer_or_an_error(text in "(TCP|é)?:?[ a-z0-9\\PC\n]{0,60}") {
            let _ = parse(&text, 4096, &mut Named::default());
        }
    }
}
