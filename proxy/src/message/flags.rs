//! Response flags: why a response is what it is, in Envoy's letters and numbers. Set by `exchange`, shown in the access
//! log and as the property `response.flags`.

/// Why an exchange did not go as it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseFlag {
    /// UH: the cluster has no endpoint to offer.
    NoHealthyUpstream,
    /// UT: the route's timeout passed.
    UpstreamTimeout,
    /// LR: we reset the stream.
    LocalReset,
    /// UR: the endpoint reset the stream, or its connection ended in the middle of a response.
    UpstreamReset,
    /// UF: no connection to the endpoint.
    UpstreamConnectFailure,
    /// UC: the connection to the endpoint ended before a response.
    UpstreamTermination,
    /// UO: the cluster is at one of its limits.
    UpstreamOverflow,
    /// NR: nobody decided a route.
    NoRoute,
    /// DI: a filter delayed the exchange on purpose.
    DelayInjected,
    /// FI: a filter made the exchange fail on purpose.
    FaultInjected,
    /// RL: a filter found that there were too many requests.
    RateLimited,
    /// UAEX: a filter did not let the request through.
    Unauthorized,
    /// DC: the client went away.
    DownstreamTermination,
    /// RLSE: a filter could not find out whether there were too many requests.
    RateLimitServiceError,
    /// SI: nothing passed on a TCP connection for too long.
    StreamIdleTimeout,
    /// DPE: the client broke the rules of HTTP.
    DownstreamProtocolError,
    /// UPE: the endpoint broke the rules of HTTP.
    UpstreamProtocolError,
    /// RFCF: a filter answered with a response that it had kept.
    ResponseFromCache,
    /// NC: the decided cluster does not exist.
    NoCluster,
    /// OM: the process is short of memory.
    Overload,
    /// DO: a filter turned the request away to protect what is behind it.
    DropOverload,
    /// WT: a filter trapped.
    WasmTrap,
    /// WL: a filter used more than its limits allow.
    WasmLimit,
}

impl ResponseFlag {
    const ALL: [ResponseFlag; 23] = [
        ResponseFlag::NoHealthyUpstream,
        ResponseFlag::UpstreamTimeout,
        ResponseFlag::LocalReset,
        ResponseFlag::UpstreamReset,
        ResponseFlag::UpstreamConnectFailure,
        ResponseFlag::UpstreamTermination,
        ResponseFlag::UpstreamOverflow,
        ResponseFlag::NoRoute,
        ResponseFlag::DelayInjected,
        ResponseFlag::FaultInjected,
        ResponseFlag::RateLimited,
        ResponseFlag::Unauthorized,
        ResponseFlag::RateLimitServiceError,
        ResponseFlag::DownstreamTermination,
        ResponseFlag::StreamIdleTimeout,
        ResponseFlag::DownstreamProtocolError,
        ResponseFlag::UpstreamProtocolError,
        ResponseFlag::ResponseFromCache,
        ResponseFlag::NoCluster,
        ResponseFlag::Overload,
        ResponseFlag::DropOverload,
        ResponseFlag::WasmTrap,
        ResponseFlag::WasmLimit,
    ];

    /// The flag's bit in `response.flags`: Envoy's, and for our own two from bit 40 up.
    pub const fn bit(self) -> u64 {
        match self {
            Self::NoHealthyUpstream => 0x2,
            Self::UpstreamTimeout => 0x4,
            Self::LocalReset => 0x8,
            Self::UpstreamReset => 0x10,
            Self::UpstreamConnectFailure => 0x20,
            Self::UpstreamTermination => 0x40,
            Self::UpstreamOverflow => 0x80,
            Self::NoRoute => 0x100,
            Self::DelayInjected => 0x200,
            Self::FaultInjected => 0x400,
            Self::RateLimited => 0x800,
            Self::Unauthorized => 0x1000,
            Self::RateLimitServiceError => 0x2000,
            Self::DownstreamTermination => 0x4000,
            Self::StreamIdleTimeout => 0x1_0000,
            Self::DownstreamProtocolError => 0x4_0000,
            Self::UpstreamProtocolError => 0x80_0000,
            Self::ResponseFromCache => 0x10_0000,
            Self::NoCluster => 0x100_0000,
            Self::Overload => 0x200_0000,
            Self::DropOverload => 0x800_0000,
            Self::WasmTrap => 1 << 40,
            Self::WasmLimit => 1 << 41,
        }
    }

    /// The flag's letters in the access log.
    pub const fn letters(self) -> &'static str {
        match self {
            Self::NoHealthyUpstream => "UH",
            Self::UpstreamTimeout => "UT",
            Self::LocalReset => "LR",
            Self::UpstreamReset => "UR",
            Self::UpstreamConnectFailure => "UF",
            Self::UpstreamTermination => "UC",
            Self::UpstreamOverflow => "UO",
            Self::NoRoute => "NR",
            Self::DelayInjected => "DI",
            Self::FaultInjected => "FI",
            Self::RateLimited => "RL",
            Self::Unauthorized => "UAEX",
            Self::RateLimitServiceError => "RLSE",
            Self::DownstreamTermination => "DC",
            Self::StreamIdleTimeout => "SI",
            Self::DownstreamProtocolError => "DPE",
            Self::UpstreamProtocolError => "UPE",
            Self::ResponseFromCache => "RFCF",
            Self::NoCluster => "NC",
            Self::Overload => "OM",
            Self::DropOverload => "DO",
            Self::WasmTrap => "WT",
            Self::WasmLimit => "WL",
        }
    }

    /// The flag with these letters, if it is one that filters may set.
    pub fn claimed(letters: &str) -> Option<ResponseFlag> {
        let found = Self::ALL.into_iter().find(|flag| flag.letters() == letters);
        found.filter(|flag| meshgate_abi::CLAIMABLE_FLAGS.contains(&flag.letters()))
    }

    /// The letters of all flags in `bits`, comma-separated; allocates only if there is more than one.
    pub fn text(bits: u64) -> std::borrow::Cow<'static, str> {
        let mut set = Self::ALL.into_iter().filter(|flag| bits & flag.bit() != 0);
        let Some(first) = set.next() else { return "".into() };
        let mut text = std::borrow::Cow::Borrowed(first.letters());
        for flag in set {
            let text = text.to_mut();
            text.push(',');
            text.push_str(flag.letters());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_has_its_own_bit_and_letters() {
        let all = ResponseFlag::ALL;
        let bits = all.iter().fold(0, |bits, flag| bits | flag.bit());
        assert_eq!(bits.count_ones() as usize, all.len());
        let text = ResponseFlag::text(bits);
        assert_eq!(text.split(',').collect::<std::collections::HashSet<_>>().len(), all.len());
        assert_eq!(ResponseFlag::text(0), "");
        assert_eq!(ResponseFlag::text(ResponseFlag::NoRoute.bit()), "NR");
    }

    #[test]
    fn filters_set_their_own_flags_and_no_others() {
        for letters in meshgate_abi::CLAIMABLE_FLAGS {
            assert_eq!(ResponseFlag::claimed(letters).map(ResponseFlag::letters), Some(letters));
        }
        for other in ["", "UH", "OM", "WT", "DC", "fi", "FI "] {
            assert_eq!(ResponseFlag::claimed(other), None, "{other}");
        }
    }
}
