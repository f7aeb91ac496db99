//! Programs by hook, and the parts they are made of.

mod atomic;
mod attribution;
mod classes;
mod connection;
mod counting;
mod drops;
mod endpoints;
mod filter;
mod forget;
mod handshake;
mod health;
mod histogram;
mod maps;
mod messages;
mod sessions;
mod single;
mod skb;
mod tcp;
mod tunnel;
mod tunnel_egress;
mod tunnel_ingress;
mod underlay;
mod underlay_egress;
mod underlay_ingress;
mod walk;
mod windows;
