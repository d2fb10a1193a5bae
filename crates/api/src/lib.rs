//! What travels between hextet and others: requests, responses, errors.

pub mod agent;
