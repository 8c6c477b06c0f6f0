//! Policy: what control hands over ([`ir`]) and what workers consult.

pub mod ir;
