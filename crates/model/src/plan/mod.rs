//! From intent to state.
