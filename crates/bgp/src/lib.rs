//! BGP-4 as an engine without I/O.

pub mod packet;
