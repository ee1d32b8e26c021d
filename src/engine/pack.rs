//! Values in few bytes: the form that a flow is parked in (`park`).
//!
//! One description serves both ways: a function that shows a packer each field in turn, which [`Writer`] writes down and [`Reader`] sets. So what is
//! read is what was written, whatever the values are. Numbers take seven bits a byte (LEB128), and one that is likely to be near another
//! is kept as the distance.

use super::pos::Pos;
use super::spec::Micros;

/// Writes fields down, or sets them.
pub trait Packer: Sized {
    /// A number that takes the less the smaller it is.
    fn number(&mut self, value: &mut u64);
    /// Bytes as they are.
    fn bytes<const N: usize>(&mut self, value: &mut [u8; N]);

    /// A number that takes eight bytes: one that grows for ever, where what holds it must not.
    fn whole(&mut self, value: &mut u64) {
        let mut bytes = value.to_le_bytes();
        self.bytes(&mut bytes);
        *value = u64::from_le_bytes(bytes);
    }
    /// A number that takes four bytes: a clock, or the start of a numbering, is as likely to be large as small.
    fn word(&mut self, value: &mut u32) {
        let mut bytes = value.to_le_bytes();
        self.bytes(&mut bytes);
        *value = u32::from_le_bytes(bytes);
    }

    /// A number of up to 64 bits.
    fn small<T: Copy + Into<u64> + TryFrom<u64>>(&mut self, value: &mut T) {
        let mut number = (*value).into();
        self.number(&mut number);
        *value = T::try_from(number).unwrap_or(*value);
    }
    /// A place in a list.
    fn index(&mut self, value: &mut usize) {
        let mut number = u64::try_from(*value).unwrap_or(u64::MAX);
        self.number(&mut number);
        *value = usize::try_from(number).unwrap_or(usize::MAX);
    }
    /// How many there are of what follows.
    fn count(&mut self, value: &mut usize) {
        self.index(value);
    }
    /// Up to 64 flags.
    fn flags<const N: usize>(&mut self, flags: [&mut bool; N]) {
        let mut number = flags
            .iter()
            .rev()
            .fold(0, |number, flag| number << 1 | u64::from(**flag));
        self.number(&mut number);
        for (i, flag) in flags.into_iter().enumerate() {
            *flag = number >> i & 1 == 1;
        }
    }
    /// A position that is likely to be near another.
    fn pos(&mut self, value: &mut Pos, near: Pos) {
        let distance = value.wrapping_sub(near);
        // A small distance of either sign is a small number: the sign goes into the lowest bit.
        let mut number = (distance << 1 ^ distance >> 63).cast_unsigned();
        self.number(&mut number);
        let distance = (number >> 1).cast_signed() ^ -(number & 1).cast_signed();
        *value = near.wrapping_add(distance);
    }
    /// A position that is near to none.
    fn far_pos(&mut self, value: &mut Pos) {
        let mut number = value.cast_unsigned();
        self.whole(&mut number);
        *value = number.cast_signed();
    }
    /// A time that is likely to be near another.
    fn time(&mut self, value: &mut Micros, near: Micros) {
        let mut signed = value.cast_signed();
        self.pos(&mut signed, near.cast_signed());
        *value = signed.cast_unsigned();
    }
    /// What may not be there.
    fn option<T: Default>(&mut self, value: &mut Option<T>, each: impl FnOnce(&mut Self, &mut T)) {
        let mut is_some = value.is_some();
        self.flags([&mut is_some]);
        if is_some {
            each(self, value.get_or_insert_default());
        } else {
            *value = None;
        }
    }
}

/// Writes fields down.
#[derive(Debug, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// What was written since the last time.
    pub fn take(&mut self) -> Box<[u8]> {
        let bytes = Box::from(&*self.0);
        self.0.clear();
        bytes
    }
}

impl Packer for Writer {
    fn number(&mut self, value: &mut u64) {
        let mut rest = *value;
        while let [low, ..] = rest.to_le_bytes()
            && rest >= 0x80
        {
            self.0.push(low | 0x80);
            rest >>= 7;
        }
        self.0.push(rest.to_le_bytes()[0]);
    }
    fn bytes<const N: usize>(&mut self, value: &mut [u8; N]) {
        self.0.extend(*value);
    }
}

/// Sets fields to what was written down. Past the end of that, to 0.
#[derive(Debug)]
pub struct Reader<'a>(pub &'a [u8]);

impl Packer for Reader<'_> {
    fn number(&mut self, value: &mut u64) {
        *value = 0;
        for shift in (0..64).step_by(7) {
            let Some((byte, rest)) = self.0.split_first() else {
                return;
            };
            self.0 = rest;
            *value |= u64::from(byte & 0x7f) << shift;
            if *byte < 0x80 {
                return;
            }
        }
    }
    fn bytes<const N: usize>(&mut self, value: &mut [u8; N]) {
        let (bytes, rest) = self.0.split_first_chunk().unwrap_or((&[0; N], &[]));
        (*value, self.0) = (*bytes, rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug, Default, PartialEq)]
    struct Sample {
        number: u64,
        whole: u64,
        far: Pos,
        word: u32,
        half: u32,
        byte: u8,
        place: usize,
        pos: Pos,
        time: Micros,
        flags: [bool; 3],
        some: Option<u32>,
        none: Option<u32>,
    }

    fn pack<P: Packer>(packer: &mut P, sample: &mut Sample, near: Pos) {
        packer.number(&mut sample.number);
        packer.whole(&mut sample.whole);
        packer.far_pos(&mut sample.far);
        packer.word(&mut sample.word);
        packer.small(&mut sample.half);
        packer.small(&mut sample.byte);
        packer.index(&mut sample.place);
        packer.pos(&mut sample.pos, near);
        packer.time(&mut sample.time, near.cast_unsigned());
        let [a, b, c] = &mut sample.flags;
        packer.flags([a, b, c]);
        packer.option(&mut sample.some, Packer::small);
        packer.option(&mut sample.none, Packer::small);
    }

    #[test]
    fn what_is_near_takes_a_byte() {
        for (distance, bytes) in [
            (0, 1),
            (63, 1),
            (-64, 1),
            (64, 2),
            (-65, 2),
            (Pos::MAX, 10),
            (Pos::MIN, 10),
        ] {
            let mut writer = Writer::default();
            let mut pos = 1_000_i64.wrapping_add(distance);
            writer.pos(&mut pos, 1_000);
            assert_eq!(writer.take().len(), bytes, "{distance}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_was_written(
            number: u64, whole: u64, far: Pos, word: u32, half: u32, byte: u8, place: usize, pos: Pos, time: Micros, flags: [bool; 3], some: u32, near: Pos
        ) {
            let sample = Sample { number, whole, far, word, half, byte, place, pos, time, flags, some: Some(some), none: None };
            let mut writer = Writer::default();
            pack(&mut writer, &mut sample.clone(), near);
            let bytes = writer.take();
            let (mut reader, mut read) = (Reader(&bytes), Sample { none: Some(7), ..Sample::default() });
            pack(&mut reader, &mut read, near);
            prop_assert_eq!(read, sample);
            prop_assert!(reader.0.is_empty());
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>, near: Pos) {
            pack(&mut Reader(&bytes), &mut Sample::default(), near);
        }
    }
}
