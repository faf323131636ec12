//! How a connection is encrypted, and what is said of one that cannot be.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use feast_registry_core::access::Identity;
use rustls::AlertDescription;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::{Speaks, Tls, identity};
use crate::complaints::Complaint;
use crate::peer::Peer;

/// What a client who wants TLS says first: the type of a handshake's records.
pub(crate) const FIRST_BYTE: u8 = 0x16;

/// How long a client who is turned away may take to read why, and how much it may say meanwhile.
const READS_WITHIN: Duration = Duration::from_secs(1);
const SAYS_AT_MOST: u64 = 64 * 1024;

/// What a client of HTTP/1 is told that does not encrypt.
const ANSWER_HTTP1: &[u8] =
    b"HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n\
    This port speaks TLS: ask with https://\n";

/// What somebody says who does not speak TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plain {
    Http2,
    Http1,
    /// Anything: who looks for open ports sends all kinds of things.
    Other,
}

impl Plain {
    /// By the first bytes; none of a client that may speak TLS.
    fn of(first: &[u8]) -> Option<Self> {
        const METHODS: [&[u8]; 9] = [b"GET ", b"HEAD", b"POST", b"PUT ", b"DELE", b"OPTI", b"PATC", b"CONN", b"TRAC"];
        let begins = |whole: &&[u8]| !first.is_empty() && whole.starts_with(&first[..first.len().min(4)]);
        if first.first().is_none_or(|byte| *byte == FIRST_BYTE) {
            None
        } else if begins(&&b"PRI "[..]) {
            Some(Self::Http2)
        } else if METHODS.iter().any(begins) {
            Some(Self::Http1)
        } else {
            Some(Self::Other)
        }
    }
}

/// Waits for the first byte that a client says, which stays to be read. None if it leaves before. Cancel-safe.
pub(crate) async fn waits_for_first_byte(connection: &TcpStream) -> Option<u8> {
    let mut first = [0];
    matches!(connection.peek(&mut first).await, Ok(1)).then_some(first[0])
}

/// Says of a port without TLS that a client wants it.
pub(crate) fn complain_of_tls_without_it(peer: Peer, speaks: Speaks) {
    static GRPC: Complaint = Complaint::new();
    static HTTP: Complaint = Complaint::new();
    static REST: Complaint = Complaint::new();
    match speaks {
        Speaks::Http2 => GRPC.say(|more| {
            tracing::warn!(
                %peer,
                "a client speaks TLS, and this server does not: give it --cert and --key, or remove `cert` and `is_tls` from the \
                 block `registry` of the client's feature_store.yaml{more}"
            );
        }),
        Speaks::Http1 => HTTP.say(|more| {
            tracing::warn!(
                %peer,
                "a client asks for health or metrics over TLS, which is not spoken: give --cert and --key, or have it ask with \
                 http://{more}"
            );
        }),
        Speaks::Either => REST.say(|more| {
            tracing::warn!(
                %peer,
                "a client of the REST API speaks TLS, and this server does not: give it --cert and --key, or have the client ask with                  http://{more}"
            );
        }),
    }
}

impl Tls {
    /// Encrypts a connection, within a time. None if that fails: the client is told why, if it can be, and so is the log, if an
    /// operator can do something about it. When it is dropped, the connection is closed.
    pub(crate) async fn accept(
        &self,
        connection: TcpStream,
        peer: Peer,
        speaks: Speaks,
        within: Duration,
    ) -> Option<TlsStream<TcpStream>> {
        let handshake = async {
            let mut first = [0; 4];
            let said = connection.peek(&mut first).await.unwrap_or_default();
            match Plain::of(&first[..said]) {
                Some(plain) => Err(Failed::Plain(plain, connection)),
                // Not before: what is in force may change until a client says something.
                None => TlsAcceptor::from(self.config(speaks))
                    .accept(connection)
                    .into_fallible()
                    .await
                    .map_err(|(error, connection)| Failed::Handshake { error, connection, has_begun: said > 0 }),
            }
        };
        match timeout(within, handshake).await {
            Ok(Ok(stream)) => Some(stream),
            Ok(Err(Failed::Plain(plain, connection))) => {
                complain_of_plain(plain, speaks, peer);
                turn_away(connection, plain.answer()).await;
                None
            }
            Ok(Err(Failed::Handshake { error, connection, has_begun })) => {
                tracing::debug!(%peer, %error, "a TLS handshake failed");
                if let Some(cause) = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>()) {
                    complain(cause, speaks, peer);
                    // It has been told by an alert, which is lost if the connection is reset.
                    turn_away(connection, &[]).await;
                } else if has_begun {
                    complain_of_leaving(peer);
                }
                None
            }
            Err(_) => {
                tracing::debug!(%peer, "a connection was closed whose TLS handshake did not come to its end");
                None
            }
        }
    }

    /// Who a client is, if its certificate says so and is to be believed.
    pub(crate) fn identity(&self, stream: &TlsStream<TcpStream>, peer: Peer) -> Option<Arc<Identity>> {
        if !self.0.files.client_certificate_is_identity {
            return None;
        }
        let own = stream.get_ref().1.peer_certificates()?.first()?;
        match identity::of_certificate(own) {
            Ok(identity) => Some(Arc::new(identity)),
            Err(why) => {
                static NOBODY: Complaint = Complaint::new();
                NOBODY.say(|more| {
                    tracing::warn!(%peer, "a client's certificate names nobody, so it is nobody's: {why}{more}");
                });
                None
            }
        }
    }
}

enum Failed {
    Plain(Plain, TcpStream),
    Handshake {
        error: io::Error,
        connection: TcpStream,
        /// Whether the client had said anything.
        has_begun: bool,
    },
}

impl Plain {
    /// What it is told. A client of gRPC is told nothing: it would take any frame for a server that has come to life, and try again
    /// at once and for ever, where one whose connection ends fails its call.
    fn answer(self) -> &'static [u8] {
        match self {
            Self::Http1 => ANSWER_HTTP1,
            Self::Http2 | Self::Other => &[],
        }
    }
}

/// Has a client read an answer before its connection is closed: what it says and nobody reads would have it reset.
async fn turn_away(mut connection: TcpStream, answer: &[u8]) {
    let reading = async {
        connection.write_all(answer).await?;
        connection.shutdown().await?;
        tokio::io::copy(&mut connection.take(SAYS_AT_MOST), &mut tokio::io::sink()).await
    };
    // That the client is gone already is all the same.
    drop(timeout(READS_WITHIN, reading).await);
}

fn complain_of_plain(plain: Plain, speaks: Speaks, peer: Peer) {
    static GRPC: Complaint = Complaint::new();
    static HTTP: Complaint = Complaint::new();
    match plain {
        Plain::Http2 => GRPC.say(|more| {
            tracing::warn!(
                %peer,
                "a client does not encrypt (it speaks HTTP/2 without TLS) and was turned away: Feast's clients need `cert` (the \
                 file of the CA), or `is_tls: true`, in the block `registry` of feature_store.yaml{more}"
            );
        }),
        Plain::Http1 => HTTP.say(|more| {
            let what = match speaks {
                Speaks::Http2 => "this port is for gRPC over TLS",
                Speaks::Http1 => "probes and Prometheus need `scheme: HTTPS`",
                Speaks::Either => "clients of the REST API need https://",
            };
            tracing::warn!(
                %peer,
                "a client does not encrypt (it speaks HTTP/1 without TLS) and was turned away: {what}{more}"
            );
        }),
        Plain::Other => tracing::debug!(%peer, "a connection was closed on which something else than TLS was spoken"),
    }
}

/// Says that a client has left in the middle of a handshake. Those of gRPC's C core, as Feast's, do so without a word if they do not
/// accept what they are shown.
fn complain_of_leaving(peer: Peer) {
    static LEFT: Complaint = Complaint::new();
    LEFT.say(|more| {
        tracing::warn!(
            %peer,
            "it seems that a client does not accept the server's certificate: it left in the middle of the TLS handshake, as Feast's do \
             then. It needs the CA that has signed it (`cert` in the block `registry` of feature_store.yaml), and the certificate must name the \
             host that the client calls (or the client's `authority`){more}"
        );
    });
}

/// Says why a handshake failed, if it is something that an operator can mend. Each kind has a complaint of its own, so that none is
/// left unsaid for another.
fn complain(cause: &rustls::Error, speaks: Speaks, peer: Peer) {
    static UNTRUSTED: Complaint = Complaint::new();
    static WITHOUT: Complaint = Complaint::new();
    static REFUSED: Complaint = Complaint::new();
    static PROTOCOL: Complaint = Complaint::new();
    static INCOMPATIBLE: Complaint = Complaint::new();
    match cause {
        rustls::Error::AlertReceived(
            alert @ (AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateExpired
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::DecryptError),
        ) => UNTRUSTED.say(|more| {
            tracing::warn!(
                %peer,
                "a client does not accept the server's certificate ({alert:?}): it needs the CA that has signed it (`cert` in the \
                 block `registry` of feature_store.yaml), the certificate must name the host that the client calls (or the \
                 client's `authority`), and must not have expired{more}"
            );
        }),
        rustls::Error::NoCertificatesPresented => WITHOUT.say(|more| {
            tracing::warn!(
                %peer,
                "a client without a certificate was refused, since --client-ca asks for one: Feast's clients need `client_cert` \
                 and `client_key` in the block `registry` of feature_store.yaml{more}"
            );
        }),
        rustls::Error::InvalidCertificate(why) => REFUSED.say(|more| {
            tracing::warn!(
                %peer,
                "a client was refused for its certificate ({why}): it must be signed by a CA in the file of --client-ca, be valid \
                 now, and be meant for clients{more}"
            );
        }),
        rustls::Error::NoApplicationProtocol => PROTOCOL.say(|more| {
            let what = match speaks {
                Speaks::Http2 => "HTTP/2, which gRPC needs",
                Speaks::Http1 => "HTTP/1.1, which is spoken for health and metrics",
                Speaks::Either => "HTTP/2 or HTTP/1.1",
            };
            tracing::warn!(%peer, "a client speaks TLS, but not {what}; is it another kind of client, or a proxy?{more}");
        }),
        rustls::Error::PeerIncompatible(why) => INCOMPATIBLE.say(|more| {
            tracing::warn!(%peer, "a client does not speak TLS 1.2 or 1.3 as this server does ({why:?}){more}");
        }),
        // Whoever looks for open ports sends such things.
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_tls_is_known_by_its_first_bytes() {
        for (first, plain) in [
            (&b""[..], None),
            (&[FIRST_BYTE, 3, 1, 2], None),
            (b"PRI ", Some(Plain::Http2)),
            (b"GET ", Some(Plain::Http1)),
            (b"POST", Some(Plain::Http1)),
            // Not all of it may have come.
            (b"G", Some(Plain::Http1)),
            (b"PRI", Some(Plain::Http2)),
            (b"PRIX", Some(Plain::Other)),
            (b"SSH-", Some(Plain::Other)),
            (&[0, 0, 0, 0], Some(Plain::Other)),
        ] {
            assert_eq!(Plain::of(first), plain, "{first:?}");
        }
    }
}
