//! Programs by hook, and the parts they are made of.

mod atomic;
mod attribution;
mod counting;
mod histogram;
mod maps;
mod skb;
mod tunnel;
mod tunnel_egress;
mod tunnel_ingress;
mod windows;
