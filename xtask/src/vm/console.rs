//! What the machine said on its console, and what follows from it.

use super::initramfs::{TESTS, UNIT};
use crate::test::Tally;

/// First words of the lines that init.sh writes for this.
const MARK: &str = "tailgauge-vm: ";

/// The part of the tests `attach` that init.sh runs by itself.
const HOTPLUG: &str = "hotplug";

/// What was read so far.
#[derive(Debug, Default)]
pub struct Console {
    up: bool,
    done: bool,
    programs_accepted: bool,
    hooks: Option<String>,
    /// Test binaries that ended, with whether they succeeded.
    ended: Vec<(String, bool)>,
    tally: Tally,
}

impl Console {
    /// Adds a line without its end. Says whether it is of interest to a reader: firmware and boot are not.
    pub fn add_line(&mut self, line: &str) -> bool {
        if let Some(said) = line.strip_prefix(MARK) {
            match said.split(' ').collect::<Vec<_>>()[..] {
                ["up", ..] => self.up = true,
                ["done"] => self.done = true,
                [name, "exited", status] => self.ended.push((name.to_owned(), status == "0")),
                ["SKIPPED", ..] => self.tally.skip_one(),
                _ => {}
            }
            return true;
        }
        if !self.up {
            return false;
        }
        if let Some(finding) = line.strip_prefix("ok ").map(str::trim_start) {
            self.programs_accepted |= finding.starts_with("programs ");
            if let Some(hooks) = finding.strip_prefix("hooks ") {
                self.hooks = hooks.split_whitespace().next().map(str::to_owned);
            }
        }
        self.tally.add_line(line);
        true
    }

    /// What to say about the machine; an error when something failed or is missing.
    pub fn verdict(&self, expected_hooks: &str) -> Result<String, String> {
        let hooks = self.hooks.as_deref().unwrap_or("none");
        let Tally { passed, failed, skipped } = self.tally;
        let accepted = if self.programs_accepted { "programs accepted" } else { "programs REFUSED" };
        let counts =
            format!("{accepted}, hooks {hooks}, {passed} passed, {failed} failed, {skipped} skipped");
        let mut lacks = Vec::new();
        if hooks != expected_hooks {
            lacks.push(format!("the hooks should be {expected_hooks}"));
        }
        for name in TESTS.into_iter().chain([UNIT, HOTPLUG]) {
            if !self.ended.iter().any(|(ended, success)| ended == name && *success) {
                lacks.push(format!("the tests {name} failed or did not end"));
            }
        }
        if !self.up {
            lacks.push("the machine did not come up".to_owned());
        } else if !self.done {
            lacks.push("the machine stopped before its end".to_owned());
        } else if passed == 0 {
            lacks.push("no test ran".to_owned());
        }
        if self.programs_accepted && failed == 0 && lacks.is_empty() {
            return Ok(counts);
        }
        let lacks: String = lacks.iter().map(|lack| format!("; {lack}")).collect();
        Err(format!("FAILED: {counts}{lacks}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "SeaBIOS (version 1.16)\n\
        tailgauge-vm: up 6.1.0-56-cloud-amd64\n\
        ok    programs      the kernel accepts them and their maps\n\
        ok    hooks         clsact (tcx: `bpf_mprog_attach` failed: Invalid argument (os error 22))\n\
        FAIL  LocalAPI      /var/run/tailscale/tailscaled.sock: No such file or directory\n\
        test result: ok. 41 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 256.26s\n\
        tailgauge-vm: programs exited 0\n\
        test result: ok. 15 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 99.00s\n\
        tailgauge-vm: attach exited 0\n\
        tailgauge-vm: attach_underlay exited 0\n\
        tailgauge-vm: drops exited 0\n\
        tailgauge-vm: unit exited 0\n\
        tailgauge-vm: hotplug exited 0\n\
        tailgauge-vm: SKIPPED a_test: needs `nft`\n\
        tailgauge-vm: done\n";

    fn read(text: &str) -> Console {
        let mut console = Console::default();
        for line in text.lines() {
            console.add_line(line);
        }
        console
    }

    #[test]
    fn a_good_run_is_told_with_its_numbers() {
        let told = read(GOOD).verdict("clsact").unwrap();
        assert_eq!(told, "programs accepted, hooks clsact, 55 passed, 0 failed, 1 skipped");
    }

    #[test]
    fn every_lack_is_a_failure_that_is_named() {
        let verdict = |from: &str, to: &str| {
            assert!(GOOD.contains(from), "{from}");
            read(&GOOD.replace(from, to)).verdict("clsact").unwrap_err()
        };
        assert!(verdict("clsact (", "tcx (").contains("the hooks should be clsact"));
        assert!(verdict("ok    programs", "FAIL  programs").contains("programs REFUSED"));
        assert!(
            verdict(" attach exited 0", " attach exited 143")
                .contains("the tests attach failed or did not end")
        );
        assert!(verdict("41 passed; 0 failed", "40 passed; 1 failed").contains("1 failed"));
        assert!(verdict("tailgauge-vm: done", "").contains("stopped before its end"));
        assert!(verdict("tailgauge-vm: up", "").contains("did not come up"));
        let none = read(&GOOD.replace("41 passed", "0 passed").replace("15 passed", "0 passed"));
        assert!(none.verdict("clsact").unwrap_err().contains("no test ran"));
    }
}
