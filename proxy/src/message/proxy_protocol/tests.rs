use proptest::prelude::*;

use super::*;

/// What comes of a connection that begins with these bytes, read in steps of at most `step`; and how many were taken.
fn arrive(stream: &[u8], step: usize) -> (Result<Option<Addresses>, Malformed>, usize) {
    let mut taken = 0;
    loop {
        let wanted = match read(&stream[..taken]) {
            Err(malformed) => return (Err(malformed), taken),
            Ok(Progress::Whole(addresses)) => return (Ok(addresses), taken),
            Ok(Progress::More(wanted)) => wanted.min(step),
            Ok(Progress::Line(most)) => {
                let there = &stream[taken..];
                let end = there.iter().position(|byte| *byte == b'\n').map_or(there.len(), |end| end + 1);
                end.min(most).min(step)
            }
        };
        let next = (taken + wanted).min(stream.len());
        assert!(wanted > 0 || next == stream.len(), "it asks for something or is done");
        if next == taken {
            return (Err(Malformed("cut short")), taken);
        }
        taken = next;
    }
}

fn addresses(source: &str, destination: &str) -> Option<Addresses> {
    Some(Addresses { source: source.parse().unwrap(), destination: destination.parse().unwrap() })
}

/// A header of version 2 with any content.
fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [SIGNATURE, &[command, family], &length, rest].concat()
}

#[test]
fn lines_are_read() {
    for (line, expected) in [
        ("PROXY TCP4 192.0.2.1 192.0.2.2 4711 443\r\n", addresses("192.0.2.1:4711", "192.0.2.2:443")),
        ("PROXY TCP6 2001:db8::1 ::1 65535 0\r\n", addresses("[2001:db8::1]:65535", "[::1]:0")),
        ("PROXY UNKNOWN\r\n", None),
        ("PROXY UNKNOWN ffff::1 whatever it says 1 2\r\n", None),
    ] {
        let stream = format!("{line}GET / HTTP/1.1\r\n");
        assert_eq!(arrive(stream.as_bytes(), usize::MAX), (Ok(expected), line.len()), "{line}");
    }
}

#[test]
fn lines_that_are_not_are_refused() {
    let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(LONGEST_LINE));
    for line in [
        "",
        "GET / HTTP/1.1\r\n",
        "proxy TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY  TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n",
        "PROXY TCP4 192.0.2.01 192.0.2.2 1 2\r\n",
        "PROXY TCP4 192.0.2 192.0.2.2 1 2\r\n",
        "PROXY TCP4 ::1 ::1 1 2\r\n",
        "PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 \r\n",
        "PROXY \r\n",
        "PROXY\r\nPROXY UNKNOWN\r\n",
        &long,
    ] {
        assert!(arrive(line.as_bytes(), usize::MAX).0.is_err(), "{line:?}");
    }
}

#[test]
fn binary_headers_are_read() {
    let v4 = [192, 0, 2, 1, 192, 0, 2, 2, 0x12, 0x67, 1, 0xbb];
    let of_v4 = addresses("192.0.2.1:4711", "192.0.2.2:443");
    let values = [&v4[..], &[1, 0, 2, b'h', b'2', 0x20, 0, 0]].concat();
    for (header, expected) in [
        (v2(0x21, 0x11, &v4), of_v4),
        (v2(0x21, 0x11, &values), of_v4),
        (v2(0x20, 0x11, &v4), None),
        (v2(0x20, 0x00, b"anything"), None),
        (v2(0x21, 0x00, &[]), None),
        (v2(0x21, 0x31, &[0; 216]), None),
    ] {
        let stream = [&header[..], b"\x16\x03\x01"].concat();
        assert_eq!(arrive(&stream, usize::MAX), (Ok(expected), header.len()), "{header:?}");
    }
}

#[test]
fn binary_headers_that_are_not_are_refused() {
    for header in [
        v2(0x11, 0x11, &[0; 12]),
        v2(0x22, 0x11, &[0; 12]),
        v2(0x21, 0x12, &[0; 12]),
        v2(0x21, 0x41, &[0; 12]),
        v2(0x21, 0x11, &[0; 11]),
        v2(0x21, 0x21, &[0; 35]),
        v2(0x21, 0x31, &[0; 215]),
        v2(0x21, 0x11, &[0; 14]),
        v2(0x21, 0x11, &[&[0; 12][..], &[1, 0, 2, 0]].concat()),
        v2(0x21, 0x00, &vec![0; LONGEST_REST + 1]),
        b"\r\n\r\n\0\r\nQUIT\r!!!!".to_vec(),
        v2(0x21, 0x11, &[0; 12])[..27].to_vec(),
    ] {
        assert!(arrive(&header, usize::MAX).0.is_err(), "{header:?}");
    }
}

/// Found by hand or by the tests below, and kept: whatever they are, nothing breaks and nothing is read too far.
#[test]
fn stored_inputs_stay_harmless() {
    let mut seen = 0;
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/corpus/proxy_protocol")).unwrap() {
        let path = entry.unwrap().path();
        let stream = std::fs::read(&path).unwrap();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let (outcome, taken) = arrive(&stream, usize::MAX);
        assert_eq!(outcome.is_ok(), name.starts_with("good"), "{name}: {outcome:?}");
        assert!(outcome.is_err() || stream[taken..] == b"REST"[..], "{name}: {taken} bytes taken");
        seen += 1;
    }
    assert!(seen > 10);
}

fn any_address() -> impl Strategy<Value = SocketAddr> {
    (any::<IpAddr>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip, port))
}

proptest! {
    #[test]
    fn what_is_written_is_read(source in any_address(), destination in any_address(), step in 1_usize..200) {
        for version in [Version::V1, Version::V2] {
            let header = write(version, Some(Addresses { source, destination }));
            let stream = [&header[..], b"GET / HTTP/1.1\r\n\r\n"].concat();
            let (read, taken) = arrive(&stream, step);
            let read = read.unwrap().unwrap();
            prop_assert_eq!(taken, header.len());
            for (read, written) in [(read.source, source), (read.destination, destination)] {
                prop_assert_eq!(read.ip().to_canonical(), written.ip().to_canonical());
                prop_assert_eq!(read.port(), written.port());
            }
            let own = write(version, None);
            prop_assert_eq!(arrive(&own, step), (Ok(None), own.len()));
        }
    }

    #[test]
    fn nothing_breaks_it(mut bytes in prop::collection::vec(any::<u8>(), 0..300), start in 0..4_usize, step in 1_usize..300) {
        let starts: [&[u8]; 4] = [b"", b"PROXY ", SIGNATURE, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"];
        bytes.splice(0..0, starts[start].iter().copied());
        let (outcome, taken) = arrive(&bytes, usize::MAX);
        prop_assert!(taken <= bytes.len());
        // In however small pieces the bytes come: the same is made of them.
        let (other, less) = arrive(&bytes, step);
        prop_assert_eq!(outcome.is_ok(), other.is_ok());
        if outcome.is_ok() {
            prop_assert_eq!((outcome, taken), (other, less));
        }
    }
}
