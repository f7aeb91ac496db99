//! The collectors, and all that comes of a reading: what was logged, and what would be exported.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::BytesMut;
use tailgauge::model::Model;
use tailgauge::model::collector::Collectors;
use tailgauge::outputs::prometheus::{Build, Encoder, Format};
use tailgauge::sources::host::HostSource;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::reader::{Exposition, parse};
use crate::tree::Tree;

const BUILD: Build = Build { version: "0", revision: "0", rustc: "0", target: "0" };

/// A line of the log.
#[derive(Clone, Debug, Default)]
pub(crate) struct Said {
    pub(crate) collector: String,
    pub(crate) text: String,
}

/// One reading.
pub(crate) struct Read {
    /// Collectors that failed.
    pub(crate) failed: Vec<String>,
    /// What was logged of them.
    pub(crate) said: Vec<Said>,
}

/// Every collector that reads files, over a tree.
pub(crate) struct Observer {
    source: HostSource,
    model: Model,
    encoder: Encoder,
}

impl Observer {
    /// As the agent starts.
    pub(crate) fn new(tree: &Tree) -> Self {
        // Those that ask the kernel read no file.
        let asks = ["qdisc", "udp"];
        let source = HostSource::new(tree.paths(), |collector| !asks.contains(&collector.name));
        Self { source, model: Model::default(), encoder: Encoder::new(BUILD) }
    }

    /// As at a scrape.
    pub(crate) fn read(&mut self) -> Read {
        let read = self.collect();
        self.exposition();
        read
    }

    /// Runs every collector.
    pub(crate) fn collect(&mut self) -> Read {
        // Of those only that do not rest now.
        self.model.collectors = Collectors::default();
        let said = logged(|| self.source.collect(&mut self.model.host, &mut self.model.collectors));
        let failed = self.model.collectors.iter().filter(|(_, status)| !status.success);
        let failed = failed.map(|(name, _)| name.to_owned()).collect();
        Read { failed, said }
    }

    /// What is exported, which must be readable, with every series once and with a number.
    pub(crate) fn exposition(&mut self) -> Exposition {
        let mut text = BytesMut::new();
        self.encoder.encode(&self.model, Instant::now(), Format::Text, &mut text);
        let exposition = well_formed(&text);
        for sample in &exposition.samples {
            // A setting may be below zero.
            let may_be = sample.value >= 0.0 || sample.name == "tailgauge_host_sysctl";
            assert!(may_be && sample.value.is_finite(), "{sample:?}");
        }
        exposition
    }
}

/// Reads a whole exposition.
pub(crate) fn well_formed(text: &[u8]) -> Exposition {
    parse(std::str::from_utf8(text).expect("UTF-8"), false).expect("well-formed")
}

/// What is logged meanwhile.
pub(crate) fn logged(work: impl FnOnce()) -> Vec<Said> {
    let log = Log::default();
    let said = Arc::clone(&log.0);
    tracing::subscriber::with_default(log, work);
    let said = said.lock().unwrap();
    said.clone()
}

/// Keeps what is logged.
#[derive(Default)]
struct Log(Arc<Mutex<Vec<Said>>>);

impl Subscriber for Log {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut said = Said::default();
        event.record(&mut said);
        self.0.lock().unwrap().push(said);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            write!(self.text, "{value:?}").unwrap();
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "collector" {
            value.clone_into(&mut self.collector);
        }
    }
}
