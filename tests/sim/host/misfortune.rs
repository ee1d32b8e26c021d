//! A service that ends, and a machine that forgets.

use smoltcp::socket::tcp;

use super::{Host, Role};
use crate::quirks::Quirks;

impl Host {
    /// The service ends: with FIN, or RST where it has not read everything or so wished. Another one listens at once.
    pub fn crash(&mut self, fin: bool) {
        while self.end_one(fin) {}
    }

    /// One connection of a service that ends; whether there was one.
    pub fn end_one(&mut self, fin: bool) -> bool {
        let Some((handle, role)) = self.slots.iter_mut().find(|(_, role)| matches!(role, Role::Server(_))) else {
            return false;
        };
        let socket = self.sockets.get_mut::<tcp::Socket>(*handle);
        *role = Role::Orphan;
        if fin && !socket.can_recv() {
            socket.close();
        } else {
            socket.abort();
        }
        true
    }

    /// The machine forgets all of its connections without a word.
    pub fn restart(&mut self) {
        for (handle, _) in self.slots.drain(..) {
            self.sockets.remove(handle);
        }
        self.queues.rx.clear();
        self.queues.tx.clear();
        self.quirks = Quirks::default();
        self.opened.clear();
        self.hung = false;
        self.keep_listening();
    }
}
