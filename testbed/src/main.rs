//! `weir-lab`: the lab's resident agent and its commands.
fn main() {}
