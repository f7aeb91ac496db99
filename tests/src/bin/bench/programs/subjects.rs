//! The programs that tailgauge's own are compared with.

use std::error::Error;
use std::path::Path;

use aya::maps::{MapData, ProgramArray};
use aya::programs::{Program, SchedClassifier};
use aya::{Ebpf, EbpfLoader};
use tailgauge_testbed::programs::{self, Context, classifier, test_run};

use super::nanoseconds;
use crate::table::{Row, digits};

static BASELINE: &[u8] = aya::include_bytes_aligned!("../../../../../ebpf/object/bench.bpf.o");
const EMPTY: &str = "empty";
const MINIMAL: &str = "minimal";
const ADVANCE: &str = "advance";
const SUBJECT: &str = "SUBJECT";

/// What a classifier costs at least, what counting costs at least, and what gives a program new messages.
pub struct Baseline {
    ebpf: Ebpf,
    subject: ProgramArray<MapData>,
}

impl Baseline {
    pub fn load() -> Result<Self, programs::Error> {
        let mut ebpf = EbpfLoader::new().load(BASELINE)?;
        for name in [EMPTY, MINIMAL, ADVANCE] {
            classifier(&mut ebpf, name)?.load()?;
        }
        let subject = ebpf.take_map(SUBJECT).ok_or(programs::Error::Missing(SUBJECT))?;
        Ok(Self { ebpf, subject: ProgramArray::try_from(subject)? })
    }

    pub fn empty(&self) -> Result<&SchedClassifier, programs::Error> {
        named(&self.ebpf, EMPTY)
    }

    pub fn minimal(&self) -> Result<&SchedClassifier, programs::Error> {
        named(&self.ebpf, MINIMAL)
    }

    /// Nanoseconds for a frame of transport messages, of which each is another one at every run, through `program`, or
    /// the empty one.
    pub fn advance(
        &mut self,
        program: Option<&SchedClassifier>,
        frame: &[u8],
        context: Context,
        times: u32,
    ) -> Result<f64, programs::Error> {
        let program = program.map_or_else(|| named(&self.ebpf, EMPTY), Ok)?;
        self.subject.set(0, program.fd()?, 0)?;
        Ok(nanoseconds(test_run(named(&self.ebpf, ADVANCE)?, frame, context, times)?.duration))
    }
}

fn named<'a>(ebpf: &'a Ebpf, name: &'static str) -> Result<&'a SchedClassifier, programs::Error> {
    Ok(ebpf.program(name).ok_or(programs::Error::Missing(name))?.try_into()?)
}

/// A program of somebody else. Its maps are as the object makes them: nobody fills them.
pub struct Foreign {
    ebpf: Ebpf,
    name: String,
}

impl Foreign {
    /// Loads the classifier `name` of the object in `file`.
    pub fn load(file: &Path, name: &str) -> Result<Self, Box<dyn Error>> {
        let in_file = |error: &dyn Error| format!("{}: {}", file.display(), crate::with_causes(error));
        let mut loader = EbpfLoader::new();
        loader.allow_unsupported_maps();
        let mut ebpf = loader.load_file(file).map_err(|error| in_file(&error))?;
        match ebpf.program_mut(name) {
            Some(Program::SchedClassifier(program)) => program.load().map_err(|error| in_file(&error))?,
            Some(_) => return Err(format!("{}: {name} is no classifier", file.display()).into()),
            None => return Err(format!("{} has no program {name}", file.display()).into()),
        }
        Ok(Self { ebpf, name: name.to_owned() })
    }

    pub fn program(&self) -> Result<&SchedClassifier, Box<dyn Error>> {
        let program = self.ebpf.program(&self.name).ok_or("the foreign program is gone")?;
        Ok(program.try_into()?)
    }

    /// What it costs beside tailgauge's.
    pub fn row(&self, what: &str, nanoseconds: f64, ours: f64) -> Row {
        Row::new(format!("{}: {what}", self.name), format!("{} ns", digits(nanoseconds)))
            .against(format!("tailgauge {} ns", digits(ours)), nanoseconds / ours)
    }
}
