//! Collector `uname`: uname(2).

use crate::model::node::Uname;
use crate::sources::clean;

/// Cannot fail.
pub(super) fn read(uname: &mut Uname) {
    let system = rustix::system::uname();
    for (place, value) in [
        (&mut uname.sysname, system.sysname()),
        (&mut uname.release, system.release()),
        (&mut uname.version, system.version()),
        (&mut uname.machine, system.machine()),
        (&mut uname.nodename, system.nodename()),
        (&mut uname.domainname, system.domainname()),
    ] {
        clean::refill(place, &clean::lossy(value.to_bytes()));
    }
}
