//! Random clients of a Service whose backends come and go, against a model that remembers who got whom.

use std::collections::HashMap;

use dataplane::{DropReason, FlowKey};
use proptest::prelude::*;

use super::packets::{ACK, SYN, SYN_ACK, Transport, tcp, udp};
use super::services::{ask, at, frame, frontends, pod_of, service, set, with_backends};
use super::shown;
use super::world::{Place, World, pod_address};

/// One client's connection: who, in which family, by TCP, from which port.
type Client = (Place, bool, bool, u16);

#[derive(Clone, Debug)]
enum Step {
    /// The client opens its connection, or sends on it.
    Ask(Client),
    /// The backend answers.
    Answer(Client),
    /// Pods 0 to 2 are backends, or not.
    Backends(u8),
    /// With affinity of so many seconds, or without.
    Affinity(bool),
}

fn client() -> impl Strategy<Value = Client> {
    let places = [
        Place::Pod(0),
        Place::Pod(1),
        Place::Pod(3),
        Place::Outside,
        Place::Node,
    ];
    let place = proptest::sample::select(places.to_vec());
    (place, any::<bool>(), any::<bool>(), 4000..4003_u16)
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => client().prop_map(Step::Ask),
        8 => client().prop_map(Step::Answer),
        1 => (0..8_u8).prop_map(Step::Backends),
        1 => any::<bool>().prop_map(Step::Affinity),
    ]
}

/// A connection as its backend sees it.
#[derive(Clone, Copy, Debug)]
struct Kept {
    pod: usize,
    shows: FlowKey,
    answered: bool,
}

#[derive(Default)]
struct Model {
    backends: Vec<usize>,
    affinity: bool,
    kept: HashMap<Client, Kept>,
}

impl Model {
    fn publish(&self, world: &mut World) {
        let mut frontends = frontends(&self.backends);
        for frontend in &mut frontends {
            frontend.affinity_s = self.affinity.then_some(100);
        }
        set(world, frontends);
    }

    fn ask(&mut self, world: &mut World, client: Client) -> Result<(), TestCaseError> {
        let (from, v4, is_tcp, port) = client;
        let before = self.kept.get(&client).copied();
        let transport = match (is_tcp, before) {
            (false, _) => udp(port, 80),
            (true, Some(Kept { answered: true, .. })) => tcp(port, 80, ACK),
            (true, _) => tcp(port, 80, SYN),
        };
        let sent = ask(world, from, v4, transport);
        // An established connection stays, everything else only while its backend serves.
        let stays = |kept: &Kept| is_tcp && kept.answered || self.backends.contains(&kept.pod);
        let before = before.filter(stays);
        if before.is_none() && self.backends.is_empty() {
            prop_assert_eq!(sent.dropped(), Some(DropReason::ServiceNoBackend));
            self.kept.remove(&client);
            return Ok(());
        }
        let pod = pod_of(&sent);
        let shows = shown::right(&sent.bytes);
        prop_assert_eq!(shows.receiver(), at(pod_address(pod, v4), 8080));
        if let Some(kept) = before {
            prop_assert_eq!((pod, shows), (kept.pod, kept.shows), "{:?}", client);
            return Ok(());
        }
        prop_assert!(self.backends.contains(&pod), "{client:?} {pod}");
        let mut others = self.kept.iter().filter(|(other, _)| **other != client);
        let mixed = others.find(|(_, kept)| (kept.pod, kept.shows) == (pod, shows));
        prop_assert!(mixed.is_none(), "{client:?} looks like {mixed:?}");
        let answered = false;
        self.kept.insert(
            client,
            Kept {
                pod,
                shows,
                answered,
            },
        );
        Ok(())
    }

    fn answer(&mut self, world: &mut World, client: Client) -> Result<(), TestCaseError> {
        let (from, v4, is_tcp, port) = client;
        let Some(kept) = self.kept.get_mut(&client) else {
            return Ok(());
        };
        let to = kept.shows.source_port;
        let transport: Transport = match (is_tcp, kept.answered) {
            (false, _) => udp(8080, to),
            (true, false) => tcp(8080, to, SYN_ACK),
            (true, true) => tcp(8080, to, ACK),
        };
        let backend = Place::Pod(kept.pod);
        let bytes = frame(world, backend, kept.shows.source, transport);
        let sent = world.send_bytes(backend.port(), &bytes);
        prop_assert_eq!(sent.forwarded_to(), Some(from.port()), "{:?}", sent.outcome);
        let shows = shown::right(&sent.bytes);
        prop_assert_eq!(shows.sender(), at(service(v4), 80));
        prop_assert_eq!(shows.receiver(), at(from.address(v4), port));
        if !kept.answered && is_tcp {
            kept.answered = true;
            let sent = ask(world, from, v4, tcp(port, 80, ACK));
            prop_assert_eq!(pod_of(&sent), kept.pod);
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn connections_keep_their_backend(steps in proptest::collection::vec(step(), 1..150)) {
        let mut world = with_backends(&[0, 1, 2]);
        let mut model = Model {
            backends: vec![0, 1, 2],
            ..Model::default()
        };
        for step in steps {
            match step {
                Step::Ask(client) => model.ask(&mut world, client)?,
                Step::Answer(client) => model.answer(&mut world, client)?,
                Step::Backends(bits) => {
                    model.backends = (0..3).filter(|pod| bits >> pod & 1 != 0).collect();
                    model.publish(&mut world);
                }
                Step::Affinity(affinity) => {
                    model.affinity = affinity;
                    model.publish(&mut world);
                }
            }
        }
        world.assert_balanced();
    }
}
