//! Files of groups that are read again and again.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::sources::host::proc_file::{ProcFile, number, unless_gone};
use crate::sources::host::{HostError, malformed};

/// Files that stay open: those of eleven levels.
pub(super) const MOST_OPEN: usize = 64;

/// Files of groups, as many as stay open.
#[derive(Default)]
pub(super) struct Files(pub(super) HashMap<PathBuf, ProcFile>);

impl Files {
    /// `None` when the level has no such file, or went meanwhile.
    pub(super) fn read(&mut self, level: &Path, name: &str) -> Result<Option<String>, HostError> {
        let path = level.join(name);
        let mut other = ProcFile::default();
        let file = match self.0.len() < MOST_OPEN {
            true => self.0.entry(path).or_default(),
            false => self.0.get_mut(&path).unwrap_or(&mut other),
        };
        unless_gone(file.parse_whole(level, name, |text| Ok(text.to_owned())))
    }

    /// A file of one number; `None` when there is no such file, and for `max`.
    pub(super) fn value(&mut self, level: &Path, name: &str) -> Result<Option<f64>, HostError> {
        let Some(text) = self.read(level, name)? else { return Ok(None) };
        match text.trim() {
            "max" => Ok(None),
            text => match number::<i64>(Some(text)) {
                Some(number) => Ok(Some(number as f64)),
                None => Err(malformed(level.join(name), "a number or `max`", text)),
            },
        }
    }
}
