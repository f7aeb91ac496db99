//! A real Prometheus in a network namespace, scraping at 1 s, and `promtool`'s opinion of an exposition.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use tempfile::TempDir;

use crate::http::{self, HttpError};
use crate::leftovers;
use crate::netns::{Namespace, NamespaceError};
use crate::process::{self, CommandError, Process, wait_every};

/// Where Prometheus serves inside the namespace.
const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);

/// What can go wrong with Prometheus.
#[derive(Debug, thiserror::Error)]
pub enum PrometheusError {
    /// Its configuration or database could not be written.
    #[error("cannot write {path} for Prometheus")]
    State {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
    /// It could not be started.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The namespace could not be entered.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// It did not answer.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// It ended, or did not get ready in time.
    #[error("Prometheus is not ready; its log:\n{log}")]
    NotReady {
        /// What it wrote.
        log: String,
    },
    /// It refused a question.
    #[error("Prometheus refused {query}: {said}")]
    Refused {
        /// The question.
        query: String,
        /// Its answer.
        said: String,
    },
    /// An answer that is not the JSON that was expected.
    #[error("cannot read Prometheus' answer to {query}")]
    Answer {
        /// The question.
        query: String,
        /// Where it went wrong.
        #[source]
        source: serde_json::Error,
    },
}

/// One element of an instant vector.
#[derive(Debug, Clone, PartialEq)]
pub struct Element {
    /// Its labels, `__name__` among them when the query kept it.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

/// A target as Prometheus sees it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// What is scraped.
    pub scrape_url: String,
    /// `up`, `down` or `unknown`.
    pub health: String,
    /// Why the last scrape failed; empty when it did not.
    pub last_error: String,
}

/// A running Prometheus; ended and forgotten when dropped.
#[derive(Debug)]
pub struct Prometheus<'a> {
    namespace: &'a Namespace,
    process: Process,
    _folder: TempDir,
}

#[derive(Deserialize)]
struct Answer<T> {
    data: Option<T>,
    #[serde(default)]
    error: String,
}

#[derive(Deserialize)]
struct Vector {
    result: Vec<RawElement>,
}

#[derive(Deserialize)]
struct RawElement {
    metric: BTreeMap<String, String>,
    value: (f64, String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Targets {
    active_targets: Vec<Target>,
}

impl<'a> Prometheus<'a> {
    /// Starts it in `namespace`, scraping /metrics of `targets` every second as job `test`, and waits until it has tried
    /// each of them; needs `prometheus` on PATH.
    pub fn start(namespace: &'a Namespace, targets: &[SocketAddr]) -> Result<Self, PrometheusError> {
        let state = |path: PathBuf| move |source| PrometheusError::State { path, source };
        let folder = leftovers::folder().map_err(state(std::env::temp_dir()))?;
        let configuration = folder.path().join("prometheus.yml");
        fs::write(&configuration, configuration_for(targets)).map_err(state(configuration.clone()))?;
        let mut command = namespace.command("prometheus");
        command
            .arg(format!("--config.file={}", configuration.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={ADDRESS}"));
        let process = Process::spawn(&mut command, folder.path().join("log"))?;
        let mut prometheus = Self { namespace, process, _folder: folder };
        // It looks at its targets for the first time five seconds after its start.
        let ready = wait_every(Duration::from_millis(50), "first scrapes", Duration::from_secs(30), || {
            let scraped = prometheus.targets().is_ok_and(|seen| {
                seen.len() == targets.len() && seen.iter().all(|target| target.health != "unknown")
            });
            (!prometheus.process.is_running() || scraped).then_some(())
        });
        if ready.is_err() || !prometheus.process.is_running() {
            return Err(PrometheusError::NotReady { log: prometheus.process.log() });
        }
        Ok(prometheus)
    }

    /// Evaluates a query now.
    pub fn query(&self, query: &str) -> Result<Vec<Element>, PrometheusError> {
        let target = format!("/api/v1/query?query={}", http::encode_query(query));
        let vector: Vector = self.ask(query, &target)?;
        let element = |raw: RawElement| Element {
            labels: raw.metric,
            // Prometheus writes what Rust reads: decimal, exponents, NaN, +Inf, -Inf.
            value: raw.value.1.parse().unwrap_or(f64::NAN),
        };
        Ok(vector.result.into_iter().map(element).collect())
    }

    /// The value of a query with exactly one element; `None` when it has none or more.
    pub fn value(&self, query: &str) -> Result<Option<f64>, PrometheusError> {
        let elements = self.query(query)?;
        Ok(if let [only] = elements.as_slice() { Some(only.value) } else { None })
    }

    /// What it scrapes and how that goes.
    pub fn targets(&self) -> Result<Vec<Target>, PrometheusError> {
        let targets: Targets = self.ask("targets", "/api/v1/targets?state=active")?;
        Ok(targets.active_targets)
    }

    /// What it logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }

    fn ask<T: DeserializeOwned>(&self, query: &str, target: &str) -> Result<T, PrometheusError> {
        let body = self.namespace.run(|| http::get(ADDRESS, target))??.body;
        let answer: Answer<T> = serde_json::from_slice(&body)
            .map_err(|source| PrometheusError::Answer { query: query.to_owned(), source })?;
        answer.data.ok_or_else(|| PrometheusError::Refused { query: query.to_owned(), said: answer.error })
    }
}

/// Runs `promtool check metrics` on an exposition in text format 0.0.4; anything it remarks is an error.
pub fn check_metrics(exposition: &str) -> Result<(), CommandError> {
    let mut command = Command::new("promtool");
    process::run_with_input(command.args(["check", "metrics"]), exposition.as_bytes())?;
    Ok(())
}

fn configuration_for(targets: &[SocketAddr]) -> String {
    let targets: Vec<String> = targets.iter().map(|target| format!("'{target}'")).collect();
    format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\n\
         scrape_configs:\n  - job_name: test\n    static_configs: [{{targets: [{}]}}]\n",
        targets.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;
    use crate::needs;
    use crate::netns::unique_prefix;
    use crate::process::wait_for;

    /// Answers every request on the listener with one counter that goes up by one a scrape.
    fn serve(listener: &TcpListener) {
        for (scrape, stream) in listener.incoming().enumerate() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            if stream.read(&mut request).is_ok() {
                let body =
                    format!("# TYPE seen_total counter\nseen_total{{kind=\"a \\\"b\\\"\"}} {scrape}\n");
                let _ = write!(
                    stream,
                    "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                );
            }
        }
    }

    #[test]
    fn samples_of_a_target_can_be_queried() {
        let Ok(()) = needs::root_and("samples_of_a_target_can_be_queried", &["ip", "prometheus"]) else {
            return;
        };
        let namespace = Namespace::create(format!("{}-prometheus", unique_prefix())).unwrap();
        let listener = namespace.run(|| TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
        let absent =
            namespace.run(|| TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()).unwrap();
        let target = listener.local_addr().unwrap();
        // Ends with the test process: the namespace takes every client away.
        std::thread::spawn(move || serve(&listener));

        let prometheus = Prometheus::start(&namespace, &[target, absent]).unwrap();
        wait_for("two scrapes", Duration::from_secs(20), || {
            prometheus.value("seen_total").unwrap().filter(|&seen| seen >= 1.0)
        })
        .unwrap();
        let elements = prometheus.query("seen_total{kind=~'a.*'}").unwrap();
        assert_eq!(elements[0].labels["kind"], "a \"b\"");
        assert_eq!(prometheus.value("up").unwrap(), None, "two targets");
        assert_eq!(prometheus.value("sum(up)").unwrap(), Some(1.0));
        let targets = prometheus.targets().unwrap();
        let down = targets.iter().find(|target| target.health == "down").unwrap();
        assert!(down.last_error.contains("refused"), "{targets:?}");
        let refused = prometheus.query("rate(").unwrap_err();
        assert!(matches!(refused, PrometheusError::Refused { .. }), "{refused}");
    }

    #[test]
    fn promtool_remarks_are_errors() {
        let Ok(()) = needs::root_and("promtool_remarks_are_errors", &["promtool"]) else { return };
        let good = "# HELP x_total Counts.\n# TYPE x_total counter\nx_total 1\n";
        check_metrics(good).unwrap();
        for bad in ["# HELP x Counts.\n# TYPE x counter\nx 1\n", "x_total{ 1\n"] {
            let error = check_metrics(bad).unwrap_err();
            assert!(matches!(error, CommandError::Failed { .. }), "{error}");
        }
    }
}
