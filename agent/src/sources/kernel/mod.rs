//! The kernel programs and their maps. The only code that touches aya.
