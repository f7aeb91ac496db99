//! A netlink socket that is opened when it is first needed, and anew after a failure.

use std::io;

use super::HostError;
use crate::sources::netlink::Netlink;

/// A dump that changes interrupted is repeated this often.
const TRIES: usize = 5;

/// Requests of one collector.
#[derive(Debug, Default)]
pub(super) struct Route(Option<Netlink>);

impl Route {
    /// Asks for everything of a kind, and hands each answer's body to `each`.
    ///
    /// A list that was changed while the kernel wrote it is used as it is after some tries: a device that came or
    /// went is less of a fault than no devices at all.
    pub(super) fn dump(
        &mut self,
        operation: &'static str,
        protocol: isize,
        kind: u16,
        request: &[u8],
        mut each: impl FnMut(&[u8]),
    ) -> Result<(), HostError> {
        let mut answers = Vec::new();
        let outcome = self.with(protocol, |netlink| {
            for _ in 0..TRIES {
                answers.clear();
                let flags = libc::NLM_F_DUMP as u16;
                match netlink.request(kind, flags, request, |_, body| answers.push(body.to_vec())) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    outcome => return outcome,
                }
            }
            Ok(())
        });
        outcome.map_err(|source| HostError::Netlink { operation, source })?;
        answers.iter().for_each(|body| each(body));
        Ok(())
    }

    fn with(&mut self, protocol: isize, ask: impl FnOnce(&mut Netlink) -> io::Result<()>) -> io::Result<()> {
        let mut netlink = match self.0.take() {
            Some(netlink) => netlink,
            None => Netlink::open(protocol)?,
        };
        // After a failure, an answer that comes late would be taken for that of the next request.
        ask(&mut netlink)?;
        self.0 = Some(netlink);
        Ok(())
    }
}
