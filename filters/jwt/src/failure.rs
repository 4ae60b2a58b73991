//! Why a request is not let in.

use std::fmt;

use meshgate_sdk::Reply;

/// The check that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// There is no token.
    Missing,
    /// It is no token, or one of a form that is not known.
    Malformed(&'static str),
    /// It is of none of the providers.
    Issuer,
    /// Signed in a way that is not accepted.
    Algorithm(String),
    /// No key that it can have been signed with is known.
    Key,
    Signature,
    /// The host cannot check such a signature.
    Unsupported(String),
    Expired,
    NotYet,
    FromTheFuture,
    Audience,
    /// A claim is missing, or has none of the values wanted.
    Claim(String),
    /// The keys could not be fetched.
    NoKeys,
}

impl Failure {
    /// One word, for logs and metrics.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed(_) => "malformed",
            Self::Issuer => "issuer",
            Self::Algorithm(_) => "algorithm",
            Self::Key => "key",
            Self::Signature => "signature",
            Self::Unsupported(_) => "unsupported",
            Self::Expired => "expired",
            Self::NotYet => "not_yet_valid",
            Self::FromTheFuture => "issued_in_the_future",
            Self::Audience => "audience",
            Self::Claim(_) => "claim",
            Self::NoKeys => "no_keys",
        }
    }

    /// The response, as RFC 6750 wants it. Without a token there is no error to speak of.
    pub(crate) fn reply(&self) -> Reply {
        let details = format!("jwt_{}", self.word());
        match self {
            Self::NoKeys => {
                Reply::new(503).header("retry-after", "1").details(details).grpc_status(UNAVAILABLE)
            }
            Self::Missing => Reply::new(401).header("www-authenticate", "Bearer").details(details),
            _ => {
                let challenge = format!("Bearer error=\"invalid_token\", error_description=\"{self}\"");
                Reply::new(401).header("www-authenticate", challenge).details(details)
            }
        }
        .body(format!("{self}\n"))
    }
}

/// gRPC's status for a service that cannot answer now.
const UNAVAILABLE: u8 = 14;

/// In words that may stand between quotation marks in a field: what tokens say themselves is made harmless.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let harmless = |text: &str| {
            let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.:/ ".contains(c);
            text.chars().take(64).filter(|c| allowed(*c)).collect::<String>()
        };
        match self {
            Self::Missing => f.write_str("there is no token"),
            Self::Malformed(why) => write!(f, "the token is malformed: {why}"),
            Self::Issuer => f.write_str("the token is of an unknown issuer"),
            Self::Algorithm(name) => write!(f, "the algorithm {} is not accepted", harmless(name)),
            Self::Key => f.write_str("the token is signed with an unknown key"),
            Self::Signature => f.write_str("the signature is wrong"),
            Self::Unsupported(name) => write!(f, "this host cannot check signatures of {}", harmless(name)),
            Self::Expired => f.write_str("the token has expired"),
            Self::NotYet => f.write_str("the token is not valid yet"),
            Self::FromTheFuture => f.write_str("the token was issued in the future"),
            Self::Audience => f.write_str("the token is for another audience"),
            Self::Claim(name) => write!(f, "the claim {} is missing, or not as required", harmless(name)),
            Self::NoKeys => f.write_str("the keys to check tokens with are not available"),
        }
    }
}
