//! Questions in, messages out.

use std::future::pending;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hickory_server::Server;
use hickory_server::net::runtime::Time;
use hickory_server::net::xfer::Protocol;
use hickory_server::proto::ProtoError;
use hickory_server::proto::op::{Edns, Header, HeaderCounts, Metadata, OpCode, ResponseCode};
use hickory_server::proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_server::proto::rr::{DNSClass, Name, RData, Record as Wire, RecordType};
use hickory_server::proto::serialize::binary::BinEncoder;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::{MessageResponse, MessageResponseBuilder};
use testbed::dns::Record;
use testbed::dns::zone::{Answer, Kind, Owned};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;

use crate::file::{RecordsFile, Served};

/// A TCP connection without a question ends after this.
const IDLE: Duration = Duration::from_secs(10);
/// Answers that one TCP connection may have waiting.
const WAITING: usize = 32;
/// Bytes of a UDP answer at most, whatever the client offers: what no link of the lab fragments.
/// Longer answers are cut and asked for again over TCP.
const UDP_BYTES: u16 = 1232;
/// Bytes of a TCP answer at most, about 4,000 addresses. The format ends at 65,535; some less are
/// used, because the library stops short of what it cannot write.
const TCP_BYTES: usize = 65_000;
/// Times of the zones' SOA records, in seconds, as CoreDNS has them; they are for zone transfers,
/// which nobody makes here.
const REFRESH_S: i32 = 7200;
const RETRY_S: i32 = 1800;
const EXPIRE_S: i32 = 86400;

/// Serves for good. A socket that fails ends all: whoever started the program starts it again.
pub async fn serve(
    records: &Arc<RecordsFile>,
    sockets: Vec<(UdpSocket, TcpListener)>,
) -> io::Result<()> {
    let turn = Arc::new(AtomicUsize::new(0));
    let mut servers = JoinSet::new();
    for (udp, tcp) in sockets {
        let handler = || Handler {
            records: records.clone(),
            turn: turn.clone(),
        };
        let (mut datagrams, mut streams) = (Server::new(handler()), Server::new(handler()));
        datagrams.register_socket(udp);
        streams.register_listener(tcp, IDLE, WAITING);
        servers.spawn(async move { datagrams.block_until_done().await });
        servers.spawn(async move { streams.block_until_done().await });
    }
    match servers.join_next().await {
        None => pending().await,
        Some(Ok(Ok(()))) => Ok(()),
        Some(Ok(Err(error))) => Err(io::Error::other(error.to_string())),
        Some(Err(error)) => Err(io::Error::other(error)),
    }
}

struct Handler {
    records: Arc<RecordsFile>,
    /// Counts questions, so that answers with several records take turns.
    turn: Arc<AtomicUsize>,
}

#[async_trait::async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut response: R,
    ) -> ResponseInfo {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut message = Message::refusing(request, ResponseCode::ServFail);
        match answer(request, &self.records, turn) {
            Ok(answered) => message = answered,
            Err(error) => println!("no answer to {:?}: {error}", request.queries.queries()),
        }
        let edns = request.edns.as_ref().map(reply_edns);
        message.fit(request, edns.as_ref());
        match response
            .send_response(message.response(request, edns.as_ref()))
            .await
        {
            Ok(sent) => sent,
            // The client is gone; what is returned is for the server's log, which is off.
            Err(_) => {
                let (metadata, counts) = (message.metadata, HeaderCounts::default());
                Header { metadata, counts }.into()
            }
        }
    }
}

fn reply_edns(asked: &Edns) -> Edns {
    let mut edns = Edns::new();
    edns.set_max_payload(asked.max_payload().clamp(512, UDP_BYTES));
    edns.set_version(0);
    edns
}

type Rows<'a> = std::slice::Iter<'a, Wire>;
type Response<'a> = MessageResponse<'a, 'a, Rows<'a>, Rows<'a>, Rows<'a>, Rows<'a>>;

/// An answer as it goes out.
struct Message {
    metadata: Metadata,
    answers: Vec<Wire>,
    soa: Vec<Wire>,
    additionals: Vec<Wire>,
}

impl Message {
    /// The message as the server sends it.
    fn response<'a>(&'a self, request: &'a Request, edns: Option<&'a Edns>) -> Response<'a> {
        let builder = MessageResponseBuilder::new(&request.queries, edns);
        builder.build(
            self.metadata,
            &self.answers,
            &[],
            &self.soa,
            &self.additionals,
        )
    }

    /// Leaves out what the message may not hold: first the additional records, then answers from
    /// the end, and says so by the TC bit. The library's own way of cutting leaves pieces of
    /// a record behind the message. Some answers are better than none: there are clients that
    /// never ask again over TCP.
    fn fit(&mut self, request: &Request, edns: Option<&Edns>) {
        let most = match (request.protocol(), edns) {
            (Protocol::Udp, None) => 512,
            (Protocol::Udp, Some(edns)) => usize::from(edns.max_payload()),
            _ => TCP_BYTES,
        };
        loop {
            let mut bytes = Vec::new();
            let emitted = self
                .response(request, edns)
                .destructive_emit(&mut BinEncoder::new(&mut bytes));
            if emitted.is_ok() && bytes.len() <= most {
                return;
            }
            if !self.additionals.is_empty() {
                // RFC 2181, section 9: leaving these out does not cut the answer.
                self.additionals.clear();
                continue;
            }
            if self.answers.is_empty() {
                return;
            }
            self.metadata.truncation = true;
            let share = self.answers.len() * most / bytes.len().max(1);
            self.answers.truncate(share.min(self.answers.len() - 1));
        }
    }

    fn refusing(request: &Request, code: ResponseCode) -> Message {
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.response_code = code;
        let (answers, soa, additionals) = (Vec::new(), Vec::new(), Vec::new());
        Message {
            metadata,
            answers,
            soa,
            additionals,
        }
    }
}

fn answer(request: &Request, records: &RecordsFile, turn: usize) -> Result<Message, ProtoError> {
    let refusal = |code| Ok(Message::refusing(request, code));
    if request.metadata.op_code != OpCode::Query {
        return refusal(ResponseCode::NotImp);
    }
    if request.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
        return refusal(ResponseCode::BADVERS);
    }
    let [query] = request.queries.queries() else {
        return refusal(ResponseCode::FormErr);
    };
    let Some(kind) = kind(query.query_type()) else {
        return refusal(ResponseCode::Refused);
    };
    if !matches!(query.query_class(), DNSClass::IN | DNSClass::ANY) {
        return refusal(ResponseCode::Refused);
    }
    let Some(served) = records.current() else {
        return refusal(ResponseCode::ServFail);
    };
    let asked = query.original().name();
    let lower = query.name().to_string();
    let lower = lower.trim_end_matches('.');
    let found = served.zone.answer(lower, kind, turn);
    let code = if found.no_such_name {
        ResponseCode::NXDomain
    } else {
        ResponseCode::NoError
    };
    let mut message = Message::refusing(request, code);
    fill(&mut message, &served, &found, asked, lower)?;
    Ok(message)
}

/// Puts an answer's records into a message. The name that was asked for keeps the case in which it
/// was asked for: some clients check it.
fn fill(
    message: &mut Message,
    served: &Served,
    found: &Answer<'_>,
    asked: &Name,
    lower: &str,
) -> Result<(), ProtoError> {
    // The root is ours too, so that every answer is with authority. Questions are answered to
    // their end, which is what a client that asks for recursion wants to hear.
    message.metadata.authoritative = true;
    message.metadata.recursion_available = true;
    let wire = |owned: &Owned<'_>| -> Result<Wire, ProtoError> {
        let (owner, record) = owned;
        let owner = if owner == lower {
            asked.clone()
        } else {
            name(owner)?
        };
        let ttl_s = served.zone.ttl_s();
        Ok(Wire::from_rdata(owner, ttl_s, rdata(record, served)?))
    };
    message.answers = found.answers.iter().map(wire).collect::<Result<_, _>>()?;
    message.additionals = found
        .additionals
        .iter()
        .map(wire)
        .collect::<Result<_, _>>()?;
    message.soa = found.soa.iter().map(wire).collect::<Result<_, _>>()?;
    Ok(())
}

/// `None` for what is no question about records: zone transfers and the like.
fn kind(asked: RecordType) -> Option<Kind> {
    Some(match asked {
        RecordType::A => Kind::A,
        RecordType::AAAA => Kind::Aaaa,
        RecordType::CNAME => Kind::Cname,
        RecordType::SRV => Kind::Srv,
        RecordType::PTR => Kind::Ptr,
        RecordType::TXT => Kind::Txt,
        RecordType::NS => Kind::Ns,
        RecordType::SOA => Kind::Soa,
        RecordType::ANY => Kind::Any,
        RecordType::AXFR | RecordType::IXFR => return None,
        _ => Kind::Other,
    })
}

fn name(text: &str) -> Result<Name, ProtoError> {
    Name::from_ascii(format!("{text}."))
}

fn rdata(record: &Record, served: &Served) -> Result<RData, ProtoError> {
    Ok(match record {
        Record::A(address) => RData::A(A(*address)),
        Record::Aaaa(address) => RData::AAAA(AAAA(*address)),
        Record::Cname(target) => RData::CNAME(CNAME(name(target)?)),
        Record::Ns(target) => RData::NS(NS(name(target)?)),
        Record::Ptr(target) => RData::PTR(PTR(name(target)?)),
        Record::Srv { port, target } => RData::SRV(SRV::new(0, 0, *port, name(target)?)),
        Record::Txt(text) => RData::TXT(TXT::new(vec![text.clone()])),
        Record::Soa { server, mailbox } => {
            let ttl_s = served.zone.ttl_s();
            let (server, mailbox) = (name(server)?, name(mailbox)?);
            let serial = served.serial;
            RData::SOA(SOA::new(
                server, mailbox, serial, REFRESH_S, RETRY_S, EXPIRE_S, ttl_s,
            ))
        }
    })
}
