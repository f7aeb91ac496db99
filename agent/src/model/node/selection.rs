//! Which collectors a scrape asks for.

/// A collector by node_exporter's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is what node_exporter's of that name is")]
pub enum NodeCollector {
    Conntrack,
    Cpu,
    Diskstats,
    Filesystem,
    Loadavg,
    Meminfo,
    Netclass,
    Netdev,
    Netstat,
    Os,
    Pressure,
    Processes,
    Sockstat,
    Softnet,
    Stat,
    Tcpstat,
    Time,
    UdpQueues,
    Uname,
    Vmstat,
}

impl NodeCollector {
    /// All of them, by name.
    pub const ALL: [Self; 20] = [
        Self::Conntrack,
        Self::Cpu,
        Self::Diskstats,
        Self::Filesystem,
        Self::Loadavg,
        Self::Meminfo,
        Self::Netclass,
        Self::Netdev,
        Self::Netstat,
        Self::Os,
        Self::Pressure,
        Self::Processes,
        Self::Sockstat,
        Self::Softnet,
        Self::Stat,
        Self::Tcpstat,
        Self::Time,
        Self::UdpQueues,
        Self::Uname,
        Self::Vmstat,
    ];

    /// The name in `collect[]`, `exclude[]` and the label `collector`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Conntrack => "conntrack",
            Self::Cpu => "cpu",
            Self::Diskstats => "diskstats",
            Self::Filesystem => "filesystem",
            Self::Loadavg => "loadavg",
            Self::Meminfo => "meminfo",
            Self::Netclass => "netclass",
            Self::Netdev => "netdev",
            Self::Netstat => "netstat",
            Self::Os => "os",
            Self::Pressure => "pressure",
            Self::Processes => "processes",
            Self::Sockstat => "sockstat",
            Self::Softnet => "softnet",
            Self::Stat => "stat",
            Self::Tcpstat => "tcpstat",
            Self::Time => "time",
            Self::UdpQueues => "udp_queues",
            Self::Uname => "uname",
            Self::Vmstat => "vmstat",
        }
    }

    /// The collector of that name.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|collector| collector.name() == name)
    }

    /// Whether it runs when nobody says which should. Those that do not cost the more the more sockets or processes
    /// there are.
    const fn default(self) -> bool {
        !matches!(self, Self::Processes | Self::Tcpstat)
    }

    const fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// A set of collectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Selection(u32);

impl Selection {
    /// Those that run when nobody says which should.
    #[must_use]
    pub fn defaults() -> Self {
        NodeCollector::ALL.into_iter().filter(|collector| collector.default()).collect()
    }

    /// Adds one.
    pub const fn insert(&mut self, collector: NodeCollector) {
        self.0 |= collector.bit();
    }

    /// Takes one out.
    pub const fn remove(&mut self, collector: NodeCollector) {
        self.0 &= !collector.bit();
    }

    /// Whether it is in the set.
    #[must_use]
    pub const fn contains(self, collector: NodeCollector) -> bool {
        self.0 & collector.bit() != 0
    }

    /// Those in the set, by name.
    pub fn iter(self) -> impl Iterator<Item = NodeCollector> {
        NodeCollector::ALL.into_iter().filter(move |collector| self.contains(*collector))
    }
}

impl FromIterator<NodeCollector> for Selection {
    fn from_iter<I: IntoIterator<Item = NodeCollector>>(collectors: I) -> Self {
        let mut selection = Self::default();
        collectors.into_iter().for_each(|collector| selection.insert(collector));
        selection
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collectors_are_in_order_and_found_by_name() {
        assert!(NodeCollector::ALL.is_sorted_by(|a, b| a.name() < b.name()));
        for (index, collector) in NodeCollector::ALL.into_iter().enumerate() {
            assert_eq!((collector as usize, NodeCollector::find(collector.name())), (index, Some(collector)));
        }
        assert_eq!(NodeCollector::find("hwmon"), None);
    }

    #[test]
    fn a_selection_holds_what_was_put_in() {
        let mut selection = Selection::defaults();
        assert_eq!(selection.iter().count(), NodeCollector::ALL.len() - 2);
        selection.remove(NodeCollector::Cpu);
        selection.insert(NodeCollector::Tcpstat);
        assert!(!selection.contains(NodeCollector::Cpu) && selection.contains(NodeCollector::Tcpstat));
    }
}
