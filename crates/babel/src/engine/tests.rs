//! A node among others.
