//! What servers say to each other, as text: the golden files.

use std::collections::BTreeMap;

use super::super::transport::{SocketId, SocketInput, SocketOutput};
use super::super::{Input, Output};
use crate::types::time::Time;
use crate::wire::quorum::{PacketStream, PacketType, QuorumPacket};
use crate::wire::snapshot_stream::SnapshotScanner;

/// One direction of a link between two servers.
struct Direction {
    to: i64,
    packets: PacketStream,
    snapshot: Option<SnapshotScanner>,
}

#[derive(Default)]
pub struct Trace {
    lines: Vec<String>,
    directions: BTreeMap<(i64, SocketId), Direction>,
}

impl Trace {
    pub fn take(&mut self) -> String {
        let mut text = self.lines.join("\n");
        text.push('\n');
        self.lines.clear();
        text
    }

    pub fn on_link(&mut self, learner: (i64, SocketId), leader: (i64, SocketId)) {
        for (from, to) in [(learner, leader.0), (leader, learner.0)] {
            let direction = Direction { to, packets: PacketStream::new(2 << 20), snapshot: None };
            self.directions.insert(from, direction);
        }
    }

    pub fn on_input(&mut self, now: Time, id: i64, input: &Input<'_>) {
        match input {
            // What is received was sent before; what nobody says says nothing.
            Input::Socket(SocketInput::Accepted { .. } | SocketInput::Received { .. } | SocketInput::Unsent { .. })
            | Input::EndOfTurn
            | Input::Timeout => {}
            Input::Socket(input) if !self.directions.contains_key(&(id, input.socket())) => {}
            input => self.lines.push(format!("{:>6} {id} < {input}", now.0 / 1000 % 1_000_000)),
        }
    }

    pub fn on_output(&mut self, now: Time, id: i64, output: &Output) {
        let at = now.0 / 1000 % 1_000_000;
        match output {
            Output::Socket(SocketOutput::Send { socket, bytes }) => {
                let Some(direction) = self.directions.get_mut(&(id, *socket)) else { return };
                let to = direction.to;
                for packet in direction.read(bytes) {
                    self.lines.push(format!("{at:>6} {id} → {to} {packet}"));
                }
            }
            Output::Socket(SocketOutput::Close { socket, .. } | SocketOutput::Hold { socket, .. })
                if !self.directions.contains_key(&(id, *socket)) => {}
            Output::Socket(SocketOutput::Connect { addresses, .. }) if addresses[0].port != super::QUORUM_PORT => {}
            output => self.lines.push(format!("{at:>6} {id} > {output}")),
        }
    }
}

impl Direction {
    fn read(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        self.packets.push(bytes);
        loop {
            if let Some(scanner) = &mut self.snapshot {
                let bytes = self.packets.take_rest();
                let used = scanner.push(&bytes).unwrap();
                if used > 0 {
                    lines.push(format!("{used} bytes of a tree"));
                }
                self.packets.push(&bytes[used..]);
                if !scanner.is_end() {
                    return lines;
                }
                self.snapshot = None;
            }
            let Some(packet) = self.packets.next_packet().unwrap() else { return lines };
            if packet.packet_type() == Some(PacketType::Snap) {
                self.snapshot = Some(SnapshotScanner::new(2 << 20));
            }
            lines.push(describe(&packet));
        }
    }
}

fn describe(packet: &QuorumPacket<'_>) -> String {
    let mut text = packet.to_string();
    let auth = packet.auth().unwrap();
    if !auth.is_empty() {
        text.push_str(&format!(" ids={}", auth.len()));
    }
    text
}
