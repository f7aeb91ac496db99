//! `--collector.NAME` and `--no-collector.NAME`, made from the list of collectors.

use std::collections::BTreeSet;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use crate::sources::host::COLLECTORS;

/// Name of the collector of dropped packets, which is a kernel program.
pub const DROPS: &str = "drops";

/// What is said of a collector: name, help, and whether it runs unless it is switched off.
type Switch = (&'static str, &'static str, bool);

/// Every collector, those of the host and those of the kernel.
fn switches() -> impl Iterator<Item = Switch> {
    let help = "dropped packets by device and reason, by the tracepoint kfree_skb";
    let host = COLLECTORS.iter().map(|collector| (collector.name, collector.help, collector.default));
    host.chain([(DROPS, help, true)])
}

/// Names of the collectors that run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CollectorFlags {
    /// Enabled names.
    pub enabled: BTreeSet<&'static str>,
}

fn on(name: &str) -> String {
    format!("collector.{name}")
}

fn off(name: &str) -> String {
    format!("no-collector.{name}")
}

impl FromArgMatches for CollectorFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Self::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.enabled = switches()
            .filter(|(name, _, default)| match matches.get_one::<bool>(&on(name)) {
                _ if matches.get_flag(&off(name)) => false,
                Some(value) => *value,
                None => *default,
            })
            .map(|(name, ..)| name)
            .collect();
        Ok(())
    }
}

impl Args for CollectorFlags {
    fn augment_args(command: Command) -> Command {
        switches().fold(command, |command, (name, help, default)| {
            let state = if default { "on" } else { "off" };
            command
                .arg(
                    Arg::new(on(name))
                        .long(on(name))
                        .env(format!("TAILGAUGE_COLLECTOR_{}", name.to_uppercase()))
                        .help(format!("{help} [default: {state}]"))
                        .help_heading("Collectors (--no-collector.NAME switches one off)")
                        .value_name("BOOL")
                        .value_parser(clap::value_parser!(bool))
                        .num_args(0..=1)
                        .require_equals(true)
                        .default_missing_value("true")
                        .overrides_with(off(name))
                        .global(true),
                )
                .arg(
                    Arg::new(off(name))
                        .long(off(name))
                        .action(ArgAction::SetTrue)
                        .hide(true)
                        .overrides_with(on(name))
                        .global(true),
                )
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::DROPS;
    use crate::cli::Cli;

    fn enabled(arguments: &[&str]) -> Vec<&'static str> {
        let cli = Cli::try_parse_from(std::iter::once("tailgauge").chain(arguments.iter().copied())).unwrap();
        cli.options.collectors.enabled.into_iter().collect()
    }

    #[test]
    fn collectors_are_switched_one_by_one() {
        assert!(enabled(&[]).contains(&"cpu"));
        assert!(!enabled(&["--no-collector.cpu"]).contains(&"cpu"));
        assert!(enabled(&[]).contains(&DROPS));
        assert!(!enabled(&["--no-collector.drops"]).contains(&DROPS));
        assert!(!enabled(&["--collector.cpu=false"]).contains(&"cpu"));
        assert!(enabled(&["--no-collector.cpu", "--collector.cpu"]).contains(&"cpu"), "the last one wins");
    }

    #[test]
    fn an_unknown_collector_is_refused() {
        let refused = Cli::try_parse_from(["tailgauge", "--collector.coffee"]).unwrap_err().to_string();
        assert!(refused.contains("--collector.coffee"), "{refused}");
    }
}
