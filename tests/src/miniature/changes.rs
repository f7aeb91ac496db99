//! What the control plane can change while traffic flows.

use ipnet::IpNet;

use super::{MiniatureTailnet, TailnetError};
use crate::control::Machine;
use crate::underlay::disco::DiscoKey;
use crate::wireguard::PrivateKey;

impl MiniatureTailnet {
    /// Adds a machine, or brings one back. Without a node behind it, it exists in LocalAPIs only.
    pub fn add_peer(&self, machine: Machine) -> Result<(), TailnetError> {
        self.add_peers([machine])
    }

    /// Adds many machines at once.
    pub fn add_peers(&self, machines: impl IntoIterator<Item = Machine>) -> Result<(), TailnetError> {
        let mut ids = Vec::new();
        {
            let mut control = self.control();
            for machine in machines {
                ids.push(machine.id);
                control.machines.insert(machine.id, machine);
            }
        }
        self.reconfigure()?;
        for node in self.nodes() {
            ids.iter().for_each(|id| node.view().announce_changed(*id));
        }
        Ok(())
    }

    /// Takes a machine out of the tailnet and returns it. Its packets are refused from now on.
    pub fn remove_peer(&self, name: &str) -> Result<Machine, TailnetError> {
        let machine = self.find(name)?;
        self.control().machines.remove(&machine.id);
        self.reconfigure()?;
        for node in self.nodes() {
            node.view().announce_removed(machine.id);
        }
        Ok(machine)
    }

    /// Gives a machine another name. Handles of its node keep the old one.
    pub fn rename_peer(&self, name: &str, new: &str) -> Result<(), TailnetError> {
        self.change(name, |machine| new.clone_into(&mut machine.name))
    }

    /// Gives a machine other routes, /0 included.
    pub fn set_routes(&self, name: &str, routes: &[IpNet]) -> Result<(), TailnetError> {
        self.change(name, |machine| machine.routes = routes.to_vec())
    }

    /// Gives a machine a new node key; sessions start anew, traffic goes on.
    pub fn rotate_key(&self, name: &str) -> Result<(), TailnetError> {
        self.change(name, |machine| machine.key = PrivateKey::generate())
    }

    /// Gives a machine a new disco key, as a restart of tailscaled does; sessions go on.
    pub fn rotate_disco_key(&self, name: &str) -> Result<(), TailnetError> {
        self.change(name, |machine| machine.disco = DiscoKey::generate())
    }

    /// Says whether a machine is connected to the control plane; the data plane does not care.
    pub fn set_online(&self, name: &str, online: bool) -> Result<(), TailnetError> {
        let id = self.find(name)?.id;
        if let Some(machine) = self.control().machines.get_mut(&id) {
            machine.online = online;
        }
        for node in self.nodes() {
            node.view().announce_online(id, online);
        }
        Ok(())
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut Machine)) -> Result<(), TailnetError> {
        let id = self.find(name)?.id;
        if let Some(machine) = self.control().machines.get_mut(&id) {
            change(machine);
        }
        self.reconfigure()?;
        for node in self.nodes() {
            node.view().announce_changed(id);
        }
        Ok(())
    }

    pub(super) fn reconfigure(&self) -> Result<(), TailnetError> {
        for node in self.nodes() {
            node.reconfigure()?;
        }
        Ok(())
    }

    pub(super) fn find(&self, name: &str) -> Result<Machine, TailnetError> {
        self.control().by_name(name).cloned().ok_or_else(|| TailnetError::NoSuchMachine(name.to_owned()))
    }
}
