//! Flags and commands. Names follow node_exporter and exporter-toolkit where these have one.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::collectors::CollectorFlags;

/// Says, per Tailscale peer and per leg, what the traffic does.
///
/// Without a command it serves: attaches its programs to the tunnel, follows tailscaled, and answers
/// Prometheus on /metrics, and on /compat/node in place of node_exporter. `tailgauge check` says first
/// what this host has and lacks.
#[derive(Debug, Parser)]
#[command(name = "tailgauge", version, args_conflicts_with_subcommands = false)]
pub struct Cli {
    /// What to do; serves when absent
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Everything else
    #[command(flatten)]
    pub options: Options,
}

/// Commands besides serving.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum Command {
    /// Says what this host has and lacks, one line each with the remedy; exit code 1 when something is missing
    Check,
}

/// Flags, valid with every command.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Tunnel device of tailscaled
    #[arg(
        long,
        global = true,
        env = "TAILGAUGE_INTERFACE",
        value_name = "NAME",
        default_value = "tailscale0",
        value_parser = interface_name
    )]
    pub interface: String,

    /// LocalAPI socket of tailscaled
    #[arg(
        long = "tailscale.socket",
        global = true,
        env = "TAILGAUGE_TAILSCALE_SOCKET",
        value_name = "PATH",
        default_value = "/var/run/tailscale/tailscaled.sock"
    )]
    pub tailscale_socket: PathBuf,

    /// Pass tailscaled's own metrics (tailscaled_...) on in /metrics, unchanged [default: false]
    #[arg(
        long = "tailscale.user-metrics",
        global = true,
        env = "TAILGAUGE_TAILSCALE_USER_METRICS",
        value_name = "BOOL",
        action = clap::ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_value = "false",
        default_missing_value = "true",
        hide_default_value = true
    )]
    pub tailscale_user_metrics: bool,

    /// Peers with counters of their own; further ones are counted as unattributed
    #[arg(
        long,
        global = true,
        env = "TAILGAUGE_MAX_PEERS",
        value_name = "COUNT",
        default_value_t = 1024,
        value_parser = clap::value_parser!(u32).range(1..=65_534)
    )]
    pub max_peers: u32,

    /// How to attach: tcx where the kernel has it, else clsact
    #[arg(
        long = "attach.mode",
        global = true,
        env = "TAILGAUGE_ATTACH_MODE",
        value_enum,
        default_value_t = AttachMode::Auto
    )]
    pub attach_mode: AttachMode,

    /// Interface under the tunnel, repeatable [default: those that default routes, peers and subnets are reached by]
    #[arg(
        long = "underlay.interface",
        global = true,
        env = "TAILGAUGE_UNDERLAY_INTERFACE",
        value_name = "NAME",
        value_delimiter = ',',
        value_parser = interface_name
    )]
    pub underlay_interface: Vec<String>,

    /// Time after which an unanswered TCP handshake counts as failed
    #[arg(
        long = "tcp.handshake-timeout",
        global = true,
        env = "TAILGAUGE_TCP_HANDSHAKE_TIMEOUT",
        value_name = "DURATION",
        default_value = "30s",
        value_parser = positive_duration
    )]
    pub tcp_handshake_timeout: Duration,

    /// Time for which a peer that left the tailnet is still exported
    #[arg(
        long = "peer.grace",
        global = true,
        env = "TAILGAUGE_PEER_GRACE",
        value_name = "DURATION",
        default_value = "5m",
        value_parser = positive_duration
    )]
    pub peer_grace: Duration,

    /// Time between two samples of CPUs, tailscaled and queues, from 20ms to 2s; 0s switches sampling off
    #[arg(
        long = "sampler.interval",
        global = true,
        env = "TAILGAUGE_SAMPLER_INTERVAL",
        value_name = "DURATION",
        default_value = "100ms",
        value_parser = sampler_interval
    )]
    pub sampler_interval: Duration,

    /// Address to serve on, repeatable [default: loopback and this node's Tailscale addresses, port 10641]
    #[arg(
        long = "web.listen-address",
        global = true,
        env = "TAILGAUGE_WEB_LISTEN_ADDRESS",
        value_name = "ADDRESS:PORT",
        value_delimiter = ',',
        value_parser = listen_address
    )]
    pub web_listen_address: Vec<std::net::SocketAddr>,

    /// Scrapes answered at the same time; more get 503
    #[arg(
        long = "web.max-requests",
        global = true,
        env = "TAILGAUGE_WEB_MAX_REQUESTS",
        value_name = "COUNT",
        default_value_t = 40,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub web_max_requests: u32,

    /// Mount point of procfs
    #[arg(
        long = "path.procfs",
        global = true,
        env = "TAILGAUGE_PATH_PROCFS",
        value_name = "PATH",
        default_value = "/proc"
    )]
    pub path_procfs: PathBuf,

    /// Mount point of sysfs
    #[arg(
        long = "path.sysfs",
        global = true,
        env = "TAILGAUGE_PATH_SYSFS",
        value_name = "PATH",
        default_value = "/sys"
    )]
    pub path_sysfs: PathBuf,

    /// Root of the host's file systems
    #[arg(
        long = "path.rootfs",
        global = true,
        env = "TAILGAUGE_PATH_ROOTFS",
        value_name = "PATH",
        default_value = "/"
    )]
    pub path_rootfs: PathBuf,

    /// Which collectors run
    #[command(flatten)]
    pub collectors: CollectorFlags,

    /// Least severe log lines to write
    #[arg(long = "log.level", global = true, env = "TAILGAUGE_LOG_LEVEL", value_enum, default_value_t = LogLevel::Info)]
    pub log_level: LogLevel,

    /// Format of log lines
    #[arg(long = "log.format", global = true, env = "TAILGAUGE_LOG_FORMAT", value_enum, default_value_t = LogFormat::Logfmt)]
    pub log_format: LogFormat,
}

/// How programs get onto the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AttachMode {
    /// tcx, else clsact
    Auto,
    /// tcx or nothing
    Tcx,
    /// clsact or nothing
    Clsact,
}

/// Severity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// Everything
    Debug,
    /// What happens once
    Info,
    /// What should be looked at
    Warn,
    /// What failed
    Error,
}

/// Shape of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// key=value
    Logfmt,
    /// One JSON object a line
    Json,
}

/// The kernel's rules for an interface name (`dev_valid_name` in net/core/dev.c).
fn interface_name(value: &str) -> Result<String, String> {
    let bad = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    if value.is_empty() || value.len() > 15 || value == "." || value == ".." || value.contains(bad) {
        return Err("an interface name has 1 to 15 bytes, without '/', ':' and spaces".to_owned());
    }
    Ok(value.to_owned())
}

fn positive_duration(value: &str) -> Result<Duration, String> {
    match humantime::parse_duration(value) {
        Ok(duration) if duration >= Duration::from_secs(1) => Ok(duration),
        Ok(_) => Err("must be at least 1s".to_owned()),
        Err(error) => Err(format!("{error}; write it like 30s or 5m")),
    }
}

const SAMPLER_INTERVALS: RangeInclusive<Duration> = Duration::from_millis(20)..=Duration::from_secs(2);

/// Off, or an interval that the tick of the kernel's CPU accounting (4 or 10 ms) fits into, and that a stall is not lost
/// in; after 4.29 s, what the kernel has of pressure begins anew.
fn sampler_interval(value: &str) -> Result<Duration, String> {
    match humantime::parse_duration(value) {
        Ok(duration) if duration.is_zero() || SAMPLER_INTERVALS.contains(&duration) => Ok(duration),
        Ok(_) => Err("must be at least 20ms and at most 2s, or 0s for no samples".to_owned()),
        Err(error) => Err(format!("{error}; write it like 100ms or 1s")),
    }
}

/// `address:port`, or `:port` for every address as exporter-toolkit takes it.
fn listen_address(value: &str) -> Result<std::net::SocketAddr, String> {
    let full = if value.starts_with(':') { format!("[::]{value}") } else { value.to_owned() };
    full.parse().map_err(|_| {
        "write it as address:port, such as 127.0.0.1:10641, [::1]:10641, or :10641 for every address"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(arguments: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("tailgauge").chain(arguments.iter().copied()))
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_has_an_environment_variable_named_after_it() {
        for argument in Cli::command().get_arguments() {
            let Some(long) = argument.get_long() else { continue };
            if ["help", "version"].contains(&long) || long.starts_with("no-") {
                continue;
            }
            let expected = format!("TAILGAUGE_{}", long.replace(['.', '-'], "_").to_uppercase());
            assert_eq!(
                argument.get_env().and_then(|name| name.to_str()),
                Some(expected.as_str()),
                "--{long}"
            );
        }
    }

    #[test]
    fn bad_values_are_refused_with_the_remedy() {
        for (arguments, remedy) in [
            (vec!["--interface", "a/b"], "1 to 15 bytes"),
            (vec!["--interface", "sixteen-bytes-xx"], "1 to 15 bytes"),
            (vec!["--underlay.interface", "eth0,a b"], "1 to 15 bytes"),
            (vec!["--max-peers", "0"], "1..=65534"),
            (vec!["--tcp.handshake-timeout", "soon"], "like 30s"),
            (vec!["--sampler.interval", "1ms"], "at least 20ms"),
            (vec!["--sampler.interval", "2001ms"], "at most 2s"),
            (vec!["--sampler.interval", "500years"], "at most 2s"),
            (vec!["--sampler.interval", "fast"], "like 100ms"),
            (vec!["--web.listen-address", "localhost"], "address:port"),
            (vec!["--log.level", "loud"], "debug, info, warn, error"),
            (vec!["--no-such-flag"], "unexpected argument"),
        ] {
            let message = parse(&arguments).unwrap_err().to_string();
            assert!(message.contains(remedy), "{arguments:?}: {message}");
        }
    }

    #[test]
    fn samples_are_taken_as_often_as_a_stall_needs_or_not_at_all() {
        for (interval, milliseconds) in [("0s", 0), ("20ms", 20), ("2s", 2000)] {
            let options = parse(&["--sampler.interval", interval]).unwrap().options;
            assert_eq!(options.sampler_interval, Duration::from_millis(milliseconds));
        }
    }

    #[test]
    fn flags_work_before_and_after_the_command() {
        assert_eq!(parse(&["--interface", "ts9", "check"]).unwrap().options.interface, "ts9");
        assert_eq!(parse(&["check", "--interface", "ts9"]).unwrap().options.interface, "ts9");
    }

    #[test]
    fn user_metrics_are_passed_on_when_asked_for_only() {
        for (arguments, expected) in [
            (vec![], false),
            (vec!["--tailscale.user-metrics"], true),
            (vec!["--tailscale.user-metrics", "check"], true),
            (vec!["--tailscale.user-metrics=false"], false),
        ] {
            assert_eq!(parse(&arguments).unwrap().options.tailscale_user_metrics, expected, "{arguments:?}");
        }
    }

    #[test]
    fn a_bare_port_listens_everywhere() {
        let cli = parse(&["--web.listen-address", ":10641"]).unwrap();
        assert_eq!(cli.options.web_listen_address, vec!["[::]:10641".parse().unwrap()]);
    }
}
