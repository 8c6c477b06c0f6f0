//! Integration tests that need neither root nor the network beyond the loopback interface.

mod dns;
mod stand_ins;
mod terminal;
mod tutorials;
