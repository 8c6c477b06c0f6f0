//! The server before a daemon that only talks: neither root nor packets.

mod answers;
mod hostile;
mod http;
mod streams;
mod toy;
