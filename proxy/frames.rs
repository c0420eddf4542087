//! Where one WebSocket frame ends and the next begins (RFC 6455, 5.2), and the frame that ends a
//! conversation. Pure.
//!
//! It follows one direction of a connection, byte by byte as they pass, however they are cut up. A
//! control frame may stand between any two frames, also between the fragments of a message; so
//! every boundary that is found here is a place for a Close frame.

use bytes::BytesMut;

/// One direction of an upgraded connection, from the head of the HTTP message on which it was
/// upgraded.
#[derive(Debug, Default)]
pub(crate) struct Speech {
    /// How much of the empty line that ends the head has passed; all of it: frames follow.
    head: usize,
    frames: Frames,
    told: bool,
}

const END_OF_HEAD: &[u8] = b"\r\n\r\n";

impl Speech {
    /// These bytes pass.
    pub(crate) fn pass(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let passed = self.go_to_boundary(rest);
            rest = &rest[passed..];
        }
    }

    /// What becomes of bytes, when there is something to say: up to the next boundary they go to
    /// `out`, and there the Close frame, made by `close`. What comes after it is nobody's any more.
    /// Without bytes it only speaks if this is a boundary.
    pub(crate) fn end(
        &mut self,
        bytes: &[u8],
        close: impl FnOnce() -> Vec<u8>,
        out: &mut BytesMut,
    ) {
        let mut rest = bytes;
        if !self.told {
            if !self.is_at_boundary() {
                let passed = self.go_to_boundary(rest);
                out.extend_from_slice(&rest[..passed]);
                rest = &rest[passed..];
            }
            if self.is_at_boundary() {
                self.told = true;
                if !self.frames.closed {
                    out.extend_from_slice(&close());
                }
            }
        }
        self.pass(rest);
    }

    /// Whether the speaker has said its own Close frame.
    pub(crate) fn is_closed(&self) -> bool {
        self.frames.closed
    }

    fn is_at_boundary(&self) -> bool {
        self.head == END_OF_HEAD.len() && self.frames.is_at_boundary()
    }

    /// Passes bytes up to the next boundary, or all; says how many. At least one, if there is one.
    fn go_to_boundary(&mut self, bytes: &[u8]) -> usize {
        if self.head == END_OF_HEAD.len() {
            return self.frames.go_to_boundary(bytes);
        }
        for (at, byte) in bytes.iter().enumerate() {
            self.head = match (*byte == END_OF_HEAD[self.head], *byte) {
                (true, _) => self.head + 1,
                (false, b'\r') => 1,
                (false, _) => 0,
            };
            if self.head == END_OF_HEAD.len() {
                return at + 1;
            }
        }
        bytes.len()
    }
}

/// Frames, one after the other.
#[derive(Debug, Default)]
struct Frames {
    /// The header of the present frame, as far as it is there.
    header: [u8; MOST_HEADER],
    have: usize,
    /// Bytes of the payload to come, once the header is there.
    left: u64,
    /// Whether a Close frame is over.
    closed: bool,
}

/// Two bytes, a length of eight and a mask of four.
const MOST_HEADER: usize = 14;

impl Frames {
    fn is_at_boundary(&self) -> bool {
        self.have == 0
    }

    fn go_to_boundary(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            if self.have < self.header_length() {
                self.header[self.have] = bytes[at];
                self.have += 1;
                at += 1;
                if self.have == self.header_length() {
                    self.left = self.payload_length();
                }
            } else {
                let rest = (bytes.len() - at) as u64;
                let passed = rest.min(self.left);
                self.left -= passed;
                // No more than there are bytes here.
                at += passed as usize;
            }
            if self.have == self.header_length() && self.left == 0 {
                const CLOSE: u8 = 8;
                self.closed |= self.header[0] & 0x0f == CLOSE;
                self.have = 0;
                return at;
            }
        }
        at
    }

    /// Of the present frame, as far as it can be known.
    fn header_length(&self) -> usize {
        if self.have < 2 {
            return 2;
        }
        let mask = match self.header[1] & 0x80 {
            0 => 0,
            _ => 4,
        };
        2 + mask
            + match self.header[1] & 0x7f {
                126 => 2,
                127 => 8,
                _ => 0,
            }
    }

    fn payload_length(&self) -> u64 {
        let big_endian = |bytes: &[u8]| {
            bytes
                .iter()
                .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
        };
        match self.header[1] & 0x7f {
            126 => big_endian(&self.header[2..4]),
            127 => big_endian(&self.header[2..10]),
            length => length.into(),
        }
    }
}

/// A Close frame with its code, and the reason in words. `mask`: as clients must have it.
pub(crate) fn close(code: u16, mask: Option<[u8; 4]>) -> Vec<u8> {
    let reason = match code {
        1001 => "going away",
        1012 => "service restart",
        _ => "",
    };
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend_from_slice(reason.as_bytes());
    // At most 17.
    let length = payload.len() as u8;
    let mut frame = match mask {
        None => vec![0x88, length],
        Some(mask) => {
            let keys = mask.iter().cycle();
            payload
                .iter_mut()
                .zip(keys)
                .for_each(|(byte, key)| *byte ^= key);
            let mut head = vec![0x88, 0x80 | length];
            head.extend_from_slice(&mask);
            head
        }
    };
    frame.extend_from_slice(&payload);
    frame
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use proptest::prelude::*;

    const HEAD: &[u8] = b"HTTP/1.1 101 Switching\r\n\rX: \r\r\n\r\n";

    /// A frame by the book; `wide` makes its length longer than it need be, which is not allowed
    /// but must not confuse.
    fn frame(opcode: u8, masked: bool, wide: u8, payload: &[u8]) -> Vec<u8> {
        let length = payload.len() as u64;
        let mask = u8::from(masked) << 7;
        let mut frame = vec![opcode];
        match (wide, length) {
            (0, 0..=125) => frame.push(mask | length as u8),
            (0 | 1, 0..=65535) => {
                frame.push(mask | 126);
                frame.extend_from_slice(&(length as u16).to_be_bytes());
            }
            _ => {
                frame.push(mask | 127);
                frame.extend_from_slice(&length.to_be_bytes());
            }
        }
        if masked {
            frame.extend_from_slice(&[1, 2, 3, 4]);
        }
        frame.extend_from_slice(payload);
        frame
    }

    fn any_frame() -> impl Strategy<Value = Vec<u8>> {
        let length = prop_oneof![0..130usize, Just(65535), Just(65536), Just(70_000)];
        (any::<u8>(), any::<bool>(), 0..3u8, length, any::<u8>()).prop_map(
            |(opcode, masked, wide, length, byte)| {
                // None is a Close frame.
                frame(opcode & 0xf7, masked, wide, &vec![byte; length])
            },
        )
    }

    /// Cuts bytes up at these places.
    fn pieces(bytes: &[u8], cuts: &[prop::sample::Index]) -> Vec<Vec<u8>> {
        let mut places: Vec<_> = cuts.iter().map(|it| it.index(bytes.len() + 1)).collect();
        places.extend([0, bytes.len()]);
        places.sort_unstable();
        let ends = places.windows(2);
        ends.map(|end| bytes[end[0]..end[1]].to_vec()).collect()
    }

    proptest! {
        #[test]
        fn what_is_said_goes_to_the_first_boundary_after_it_was_wanted_however_the_bytes_come(
            frames in prop::collection::vec(any_frame(), 1..6),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
            wanted in any::<prop::sample::Index>(),
        ) {
            let mut bytes = HEAD.to_vec();
            let mut boundaries = vec![bytes.len()];
            for frame in &frames {
                bytes.extend_from_slice(frame);
                boundaries.push(bytes.len());
            }
            let pieces = pieces(&bytes, &cuts);
            let wanted = wanted.index(pieces.len());
            let before: usize = pieces[..wanted].iter().map(Vec::len).sum();
            let expected = boundaries.into_iter().find(|it| *it >= before).unwrap();

            let (mut speech, mut out) = (Speech::default(), BytesMut::new());
            for piece in &pieces[..wanted] {
                speech.pass(piece);
                out.extend_from_slice(piece);
            }
            speech.end(&[], || b"close".to_vec(), &mut out);
            for piece in &pieces[wanted..] {
                speech.end(piece, || b"close".to_vec(), &mut out);
            }
            prop_assert!(speech.told);
            prop_assert!(!speech.is_closed());
            let said = [&bytes[..expected], b"close"].concat();
            prop_assert!(out == said, "{} instead of {}", out.len(), said.len());
        }
    }

    #[test]
    fn a_speaker_who_has_closed_is_not_closed_again() {
        for close in [
            close(1000, None),
            close(1001, Some([9, 8, 7, 6])),
            frame(0x88, false, 0, &[]),
        ] {
            let (mut speech, mut out) = (Speech::default(), BytesMut::new());
            speech.pass(HEAD);
            speech.pass(&close[..1]);
            assert!(!speech.is_closed());
            speech.pass(&close[1..]);
            assert!(speech.is_closed());
            speech.end(b"", || panic!("closed again"), &mut out);
            assert!(out.is_empty() && speech.told);
        }
    }

    #[test]
    fn the_answer_is_heard_also_when_it_goes_no_further() {
        let (mut speech, mut out) = (Speech::default(), BytesMut::new());
        speech.pass(HEAD);
        speech.end(b"", || close(1012, None), &mut out);
        assert_eq!(&out[..], b"\x88\x11\x03\xf4service restart");
        speech.end(&frame(0x81, true, 0, b"late"), || panic!("twice"), &mut out);
        speech.end(&close(1012, Some([1; 4])), || panic!("twice"), &mut out);
        assert!(speech.is_closed());
        assert_eq!(out.len(), 19);
    }

    #[test]
    fn a_masked_close_frame_reads_as_it_was_meant() {
        let frame = close(1001, Some([1, 2, 3, 4]));
        assert_eq!(frame[..6], [0x88, 0x80 | 12, 1, 2, 3, 4]);
        let keys = [1, 2, 3, 4].iter().cycle();
        let payload: Vec<u8> = frame[6..]
            .iter()
            .zip(keys)
            .map(|(byte, key)| byte ^ key)
            .collect();
        assert_eq!(payload, b"\x03\xe9going away");
    }
}
