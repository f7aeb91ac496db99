//! Text formats of Prometheus: one streaming encoder for everything in the model.
//!
//! A family is a row of a table: what a reader must know of it and the function that writes its samples. The
//! same rows make docs/METRICS.md. At rest nothing is allocated: output goes into one reused buffer, and the
//! labels of a peer are rendered once, until the peer changes.

mod buckets;
mod build;
mod document;
mod families;
mod family;
mod foreign;
mod format;
mod labels;
mod text;

use std::time::Instant;

use bytes::BytesMut;

pub use build::Build;
pub use document::metrics_markdown;
pub(crate) use family::{Header, Kind};
pub use format::{Format, Representation, negotiate};
pub(crate) use text::{Line, Samples, family, single};

use crate::model::Model;
use crate::outputs::own::SelfMetrics;
use families::{SECTIONS, View};
use labels::Labels;

/// Writes the model as text. Keep one: it remembers the rendered labels of every peer.
#[derive(Debug)]
pub struct Encoder {
    build: Build,
    labels: Labels,
}

impl Encoder {
    /// An encoder for the agent that `build` describes.
    #[must_use]
    pub fn new(build: Build) -> Self {
        Self { build, labels: Labels::default() }
    }

    /// Appends every family of the model to `out`. `now` is the moment that ages are counted to.
    pub fn encode(&mut self, model: &Model, now: Instant, format: Format, out: &mut BytesMut) {
        self.labels.refresh(model);
        let view = View { model, labels: &self.labels, build: &self.build, now };
        for section in SECTIONS {
            for family in section.families {
                text::family(&family.header, format, out, |samples| (family.samples)(&view, samples));
            }
        }
        if let Some(metrics) = &model.user_metrics {
            foreign::user_metrics(metrics, format, out);
        }
    }
}

/// Appends a whole exposition: the model, the agent's own metrics, and the end mark of the format.
pub fn render(
    encoder: &mut Encoder,
    model: &Model,
    own: &SelfMetrics,
    now: Instant,
    format: Format,
    out: &mut BytesMut,
) {
    encoder.encode(model, now, format, out);
    own.encode(format, out);
    if format == Format::OpenMetrics {
        out.extend_from_slice(b"# EOF\n");
    }
}
