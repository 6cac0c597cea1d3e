//! The bytes of an event: protocol buffers, as few of them as curves and images need.

use super::crc32c::masked;

/// Bytes of a message. Fields are written in any order, and those with their default may be left out.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(mut self, mut value: u64) -> Self {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
        self
    }

    fn key(self, field: u64, wire: u64) -> Self {
        self.varint(field << 3 | wire)
    }

    fn integer(self, field: u64, value: u64) -> Self {
        self.key(field, 0).varint(value)
    }

    fn double(mut self, field: u64, value: f64) -> Self {
        self = self.key(field, 1);
        self.0.extend(value.to_le_bytes());
        self
    }

    fn float(mut self, field: u64, value: f32) -> Self {
        self = self.key(field, 5);
        self.0.extend(value.to_le_bytes());
        self
    }

    fn bytes(mut self, field: u64, value: &[u8]) -> Self {
        self = self.key(field, 2).varint(value.len() as u64);
        self.0.extend(value);
        self
    }
}

/// What an event is about.
pub(super) enum What<'a> {
    /// First in every file.
    Version,
    /// A run starts, or starts again: what was logged from this step on is void.
    Start,
    /// Points of curves.
    Scalars(&'a [(&'a str, f64)]),
    /// A picture.
    Png { tag: &'a str, png: &'a [u8], size: [u32; 2], channels: u32 },
}

/// The record of an event, ready to be appended to a file.
pub(super) fn record(wall_time: f64, step: u64, what: &What) -> Vec<u8> {
    let event = Message::default().double(1, wall_time).integer(2, step);
    let event = match what {
        What::Version => event.bytes(3, b"brain.Event:2"),
        What::Start => event.bytes(7, &Message::default().integer(1, 1).0),
        What::Scalars(values) => {
            let value =
                |(tag, v): &(&str, f64)| Message::default().bytes(1, tag.as_bytes()).float(2, *v as f32);
            let add = |summary: Message, v: &(&str, f64)| summary.bytes(1, &value(v).0);
            event.bytes(5, &values.iter().fold(Message::default(), add).0)
        }
        What::Png { tag, png, size: [width, height], channels } => {
            let image = Message::default().integer(1, u64::from(*height)).integer(2, u64::from(*width));
            let image = image.integer(3, u64::from(*channels)).bytes(4, png);
            let value = Message::default().bytes(1, tag.as_bytes()).bytes(4, &image.0);
            event.bytes(5, &Message::default().bytes(1, &value.0).0)
        }
    };
    frame(&event.0)
}

/// A record: length, checksum of the length, data, checksum of the data.
fn frame(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(data.len() + 16);
    record.extend(length);
    record.extend(masked(&length).to_le_bytes());
    record.extend(data);
    record.extend(masked(data).to_le_bytes());
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that TensorBoard's own writer made.
    #[test]
    fn records_are_those_of_tensorboard() {
        let fixture: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/fixtures/events.json")).unwrap();
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let expect =
            |name: &str, bytes: &[u8]| assert_eq!(hex(bytes), fixture[name].as_str().unwrap(), "{name}");
        expect("start", &record(1700000000.25, 300, &What::Start));
        expect("version", &record(1700000000.25, 1, &What::Version));
        expect("scalars", &record(1.5, 1 << 40, &What::Scalars(&[("train/loss", 0.125), ("lr", 1e-4)])));
        let png = What::Png { tag: "sample/0", png: b"not really", size: [640, 480], channels: 3 };
        expect("png", &record(1.5, 7, &png));
    }

    #[test]
    fn numbers_that_are_not_finite_are_written_as_they_are() {
        let bytes = record(0.0, 1, &What::Scalars(&[("a", f64::NAN), ("b", 1e300)]));
        assert!(bytes.windows(4).any(|w| f32::from_le_bytes([w[0], w[1], w[2], w[3]]).is_nan()));
        assert!(bytes.windows(4).any(|w| w == f32::INFINITY.to_le_bytes()));
    }
}
