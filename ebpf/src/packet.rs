//! Reads an inner packet: layer 3 from byte 0, no Ethernet header.
