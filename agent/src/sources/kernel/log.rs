//! Log lines of the programs, when the object was built with them. They are rare, so they wait in their ring
//! buffer until somebody looks.

use aya_log::EbpfLogger;

use super::object::Object;

/// The programs' log, if there is one.
pub(super) struct KernelLog(Option<Box<dyn FnMut()>>);

impl KernelLog {
    pub(super) fn open(object: &mut Object) -> Self {
        let logger = EbpfLogger::init(object.ebpf()).ok();
        Self(logger.map(|mut logger| Box::new(move || logger.flush()) as Box<dyn FnMut()>))
    }

    /// Hands what has come so far to the `log` crate.
    pub(super) fn flush(&mut self) {
        if let Some(flush) = &mut self.0 {
            flush();
        }
    }
}

impl std::fmt::Debug for KernelLog {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("KernelLog").field(&self.0.is_some()).finish()
    }
}
