//! The miniature tailnet as tests see any tailnet.

use super::{EXIT_SUBNET_V4, MiniatureTailnet, WEB_V4, WEB_V6};
use crate::netns::Namespace;
use crate::tailnet::{Node, ServerAddresses, Tailnet};

impl MiniatureTailnet {
    fn view<'a>(&self, node: &'a crate::node::Node) -> Node<'a> {
        let control = self.control();
        let addresses =
            control.by_name(node.name()).map(|machine| machine.ips().to_vec()).unwrap_or_default();
        Node { name: node.name(), namespace: node.namespace(), addresses, socket: node.socket() }
    }
}

impl Tailnet for MiniatureTailnet {
    fn exit_node(&self) -> Node<'_> {
        self.view(self.exit())
    }

    fn clients(&self) -> Vec<Node<'_>> {
        vec![self.view(self.c1()), self.view(self.c2()), self.view(self.six())]
    }

    fn server(&self) -> &Namespace {
        self.web()
    }

    fn server_addresses(&self) -> ServerAddresses {
        ServerAddresses {
            internet_v4: WEB_V4.into(),
            internet_v6: WEB_V6.into(),
            subnet_v4: EXIT_SUBNET_V4.into(),
        }
    }
}
