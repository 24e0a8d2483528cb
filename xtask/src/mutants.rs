//! The protocol with one rule broken at a time: what `cargo xtask explore` must find out. The rules are those of
//! `docs/architecture.md`; those on weak ordering have their twins in `relay-common/tests/loom/`.

/// A rule, and edits to the source that break it.
#[derive(Debug)]
pub(crate) struct Mutant {
    /// The rule that is broken.
    pub(crate) rule: &'static str,
    /// The test target that must fail.
    pub(crate) test: &'static str,
    /// Under `relay-common/src`.
    pub(crate) file: &'static str,
    /// What is replaced by what; each text is there exactly once.
    pub(crate) edits: &'static [(&'static str, &'static str)],
}

const EXPLORE: &str = "explore";
const EXHAUSTIVE: &str = "exhaustive";
const WRITER: &str = "writer.rs";
const READER: &str = "reader.rs";
const COMMITTED: &str = "committed.rs";

/// In the order in which a writer, then the reader, comes to the rules.
///
/// Not here, because nothing that the explorer can do breaks without them: a mark's check that nothing is open (the place would
/// not be complete), and its `records_before` from before the exchange (a mark takes the whole sub-buffer).
pub(crate) const MUTANTS: &[Mutant] = &[
    Mutant {
        rule: "room is taken by an exchange, not by a store",
        test: EXPLORE,
        file: WRITER,
        edits: &[(
            "if !producer.reserved.exchange_if(look.reserved, begin + len) {",
            "if producer.reserved.swap(begin + len) == u64::MAX {",
        )],
    },
    Mutant {
        rule: "nor on the common path",
        test: EXPLORE,
        file: WRITER,
        edits: &[(
            "if !producer.reserved.exchange_if(reserved, begin + len) {",
            "if producer.reserved.swap(begin + len) == u64::MAX {",
        )],
    },
    Mutant {
        rule: "the common path takes no room where no sub-buffer is open",
        test: EXPLORE,
        file: WRITER,
        edits: &[("geometry.offset(reserved) == 0 || ", "")],
    },
    Mutant {
        rule: "nor the last of a sub-buffer, which it does not close",
        test: EXPLORE,
        file: WRITER,
        edits: &[(
            "!geometry.in_one_subbuf(reserved, begin + len)",
            "!geometry.in_one_subbuf(reserved, begin + len - 1)",
        )],
    },
    Mutant {
        rule: "a commit is one add, not a load and a store",
        test: EXPLORE,
        file: WRITER,
        edits: &[(
            "let before = buffer.committed(subbuf).fetch_add(amount);",
            "let word = buffer.committed(subbuf);
        let before = word.peek();
        let _ = word.swap(before.wrapping_add(amount));",
        )],
    },
    Mutant {
        rule: "bytes and records are counted by the same add",
        test: EXPLORE,
        file: WRITER,
        edits: &[(
            "let before = buffer.committed(subbuf).fetch_add(amount);",
            "let word = buffer.committed(subbuf);
        let _ = word.fetch_add(amount & ((1 << 40) - 1));
        let before = word.fetch_add(amount >> 40 << 40).wrapping_sub(amount & ((1 << 40) - 1));",
        )],
    },
    Mutant {
        rule: "a record is committed after its bytes are there: its room is not visible when it is taken",
        test: EXPLORE,
        file: WRITER,
        edits: &[(
            "        Some(Ok(self.granted(&look, begin, len, first_free - look.offset)))",
            "        let granted = self.granted(&look, begin, len, first_free - look.offset);
        self.add(granted.subbuf, granted.amount);
        Some(Ok(Reservation { amount: 0, ..granted }))",
        )],
    },
    Mutant {
        rule: "nor on the common path",
        test: EXPLORE,
        file: WRITER,
        edits: &[(
            "        Some(Reservation { place, stamp, subbuf: geometry.subbuf(reserved), amount, closes: 0, lost: 0 })",
            "        self.add(geometry.subbuf(reserved), amount);
        Some(Reservation { place, stamp, subbuf: geometry.subbuf(reserved), amount: 0, closes: 0, lost: 0 })",
        )],
    },
    Mutant {
        rule: "padding is written by the closer, and never by an opener",
        test: EXPLORE,
        file: WRITER,
        edits: &[(
            "buffer.store_u32(place + RECORDS_BEFORE_AT, before.records());",
            "buffer.store_u32(place + RECORDS_BEFORE_AT, before.records());
        buffer.store_u32(place, 0);",
        )],
    },
    Mutant {
        rule: "whoever moves past the end of a sub-buffer closes it",
        test: EXPLORE,
        file: WRITER,
        edits: &[(
            "if look.offset != 0 {
            self.close_rest(look);
        }",
            "",
        )],
    },
    Mutant {
        rule: "a place is entered only when its last lap is complete",
        test: EXPLORE,
        file: WRITER,
        edits: &[(
            "if !before.is_complete(geometry, geometry.lap(number)) {\n            if producer",
            "if false {\n            if producer",
        )],
    },
    Mutant {
        rule: "a mark, too, enters a place only when its last lap is complete",
        test: EXPLORE,
        file: WRITER,
        edits: &[("if !before.is_complete(geometry, geometry.lap(number))\n            || !", "if !")],
    },
    Mutant {
        rule: "records_before comes from the committed read before the exchange",
        test: EXPLORE,
        file: WRITER,
        edits: &[(
            "self.open(number, before, look.stamp);\n        if mode",
            "self.open(number, Committed(buffer.committed(geometry.place(base)).peek()), look.stamp);\n        if mode",
        )],
    },
    Mutant {
        rule: "the records of the lap that an opener ends are retired",
        test: EXPLORE,
        file: WRITER,
        edits: &[("buffer.control().producer.retired.count(u64::from(retired));", "let _ = retired;")],
    },
    Mutant {
        rule: "reserved is read again before a loss is counted as nested",
        test: EXPLORE,
        file: WRITER,
        edits: &[(
            "if producer.reserved.peek() != look.reserved {
                return None;
            }
            producer.lost_nested",
            "producer.lost_nested",
        )],
    },
    Mutant {
        rule: "no sub-buffer is entered that the reader still needs",
        test: EXPLORE,
        file: WRITER,
        edits: &[("if mode == Mode::NoOverwrite && self.is_full(number) {", "if false {")],
    },
    Mutant {
        rule: "nor by a mark",
        test: EXPLORE,
        file: WRITER,
        edits: &[(
            "if look.offset != 0 || (mode == Mode::NoOverwrite && self.is_full(number)) {",
            "if look.offset != 0 {",
        )],
    },
    Mutant {
        rule: "a loss as full closes the open sub-buffer",
        test: EXHAUSTIVE,
        file: WRITER,
        edits: &[("if look.offset != 0 && !self.close_at(look, base) {", "if false {")],
    },
    Mutant {
        rule: "with one sub-buffer, close before opening",
        test: EXPLORE,
        file: WRITER,
        edits: &[
            ("if geometry.n_subbufs() == 1 && look.offset != 0 {", "if false {"),
            (
                "if !before.is_complete(geometry, geometry.lap(number)) {\n            if producer",
                "if geometry.n_subbufs() != 1 && !before.is_complete(geometry, geometry.lap(number)) {\n            if producer",
            ),
        ],
    },
    Mutant {
        rule: "a sub-buffer that is filled is closed before the commit that completes it",
        test: EXPLORE,
        file: WRITER,
        edits: &[
            (
                "    pub fn commit(&self, reservation: &Reservation) {",
                "    pub fn commit(&self, reservation: &Reservation) {\n        self.add(reservation.subbuf, reservation.amount);",
            ),
            ("        }\n        self.add(reservation.subbuf, reservation.amount);", "        }"),
        ],
    },
    Mutant {
        rule: "padding and closing words are written before the add that covers them",
        test: EXPLORE,
        file: WRITER,
        edits: &[(
            "self.close(subbuf, padding, look.stamp, look.lost);
        self.add(subbuf, Committed::amount(0, padding));
    }

    /// Writes what only",
            "self.add(subbuf, Committed::amount(0, padding));
        self.close(subbuf, padding, look.stamp, look.lost);
    }

    /// Writes what only",
        )],
    },
    Mutant {
        rule: "the stamp is read after the look",
        test: EXPLORE,
        file: WRITER,
        edits: &[
            (
                "        Look {\n            reserved,",
                "        let stamp = self.client.stamp(producer);\n        let reserved = producer.reserved.peek();\n        Look {\n            reserved,",
            ),
            ("stamp: self.client.stamp(producer),", "stamp,"),
        ],
    },
    Mutant {
        rule: "on the common path too",
        test: EXPLORE,
        file: WRITER,
        edits: &[
            (
                "let reserved = producer.reserved.peek();\n        let begin",
                "let stamp = client.stamp(producer);\n        let reserved = producer.reserved.peek();\n        let begin",
            ),
            ("let stamp = client.stamp(producer);\n        if !producer", "if !producer"),
        ],
    },
    Mutant {
        rule: "the losses are read after the look",
        test: EXPLORE,
        file: WRITER,
        edits: &[
            (
                "        Look {\n            reserved,",
                "        let lost = producer.lost();\n        let reserved = producer.reserved.peek();\n        Look {\n            reserved,",
            ),
            ("lost: producer.lost(),", "lost,"),
        ],
    },
    Mutant {
        rule: "stamp and losses are read before the exchange, again in each try",
        test: EXPLORE,
        file: WRITER,
        edits: &[
            (
                "for _ in 0..TRIES {\n            if let Some(result) = self.look_and_reserve(len) {",
                "let first = self.look();\n        for _ in 0..TRIES {\n            if let Some(result) = self.look_and_reserve(len, &first) {",
            ),
            ("fn look_and_reserve(&self, len: u64)", "fn look_and_reserve(&self, len: u64, first: &Look)"),
            (
                "let look = self.look();\n        let first_free",
                "let look = Look { stamp: first.stamp, lost: first.lost, ..self.look() };\n        let first_free",
            ),
        ],
    },
    Mutant {
        rule: "alignment gaps are zero",
        test: EXPLORE,
        file: WRITER,
        edits: &[("self.zero(look.reserved, begin);", "")],
    },
    Mutant {
        rule: "on the common path too",
        test: EXPLORE,
        file: WRITER,
        edits: &[("self.zero(reserved, begin);", "")],
    },
    Mutant {
        rule: "a flush leaves alone what was never opened",
        test: EXPLORE,
        file: WRITER,
        edits: &[("if look.offset == 0 {\n                return;\n            }", "")],
    },
    Mutant {
        rule: "whoever completes a sub-buffer wakes the reader, not whoever closes it",
        test: EXPLORE,
        file: WRITER,
        edits: &[
            ("if geometry.offset(before.wrapping_add(amount)) == 0", "let _ = before;\n        if amount == u64::MAX"),
            (
                "client.subbuf_end(buffer, subbuf + HEADER, Closing { stamp, content, lost });",
                "client.subbuf_end(buffer, subbuf + HEADER, Closing { stamp, content, lost });
        if buffer.control().consumer.waiting.swap(0) != 0 {
            let _ = buffer.wake();
        }",
            ),
        ],
    },
    Mutant {
        rule: "a wake-up that failed is asked for again",
        test: EXPLORE,
        file: WRITER,
        edits: &[("let _ = waiting.swap(1);", "")],
    },
    Mutant {
        rule: "full is told by one exchange, once",
        test: EXPLORE,
        file: WRITER,
        edits: &[(
            "if producer.full.peek() == 0 && producer.full.exchange_if(0, 1) {",
            "if producer.full.peek() == 0 && producer.full.swap(1) != 2 {",
        )],
    },
    Mutant {
        rule: "recovered is told by one exchange, once",
        test: EXPLORE,
        file: WRITER,
        edits: &[(
            "producer.full.peek() != 0 && producer.full.exchange_if(1, 0) {",
            "producer.full.peek() != 0 && producer.full.swap(0) != 2 {",
        )],
    },
    Mutant {
        rule: "giving up is a loss, and counted",
        test: EXPLORE,
        file: WRITER,
        edits: &[(
            "producer.lost_nested.count(1);\n        Lost::Nested",
            "producer.lost_nested.count(0);\n        Lost::Nested",
        )],
    },
    Mutant {
        rule: "consumed is a signed distance: no value of it is worse than a loss or an overwrite",
        test: EXHAUSTIVE,
        file: WRITER,
        edits: &[(
            "behind.cast_signed() >= self.geometry.n_subbufs().cast_signed()",
            "behind >= self.geometry.n_subbufs()",
        )],
    },
    Mutant {
        rule: "too big is what fits no sub-buffer",
        test: EXHAUSTIVE,
        file: WRITER,
        edits: &[(
            "len > MAX_RECORD || Self::FIRST + len > self.geometry.subbuf_size()",
            "len > MAX_RECORD || HEADER + C::HEADER + len > self.geometry.subbuf_size()",
        )],
    },
    Mutant {
        rule: "a sub-buffer is taken when every writer has committed",
        test: EXPLORE,
        file: READER,
        edits: &[("if !committed.is_complete(geometry, lap + 1) {", "if false {")],
    },
    Mutant {
        rule: "a copy is good if the place was not entered meanwhile",
        test: EXPLORE,
        file: READER,
        edits: &[(
            "self.reserved() <= self.geometry.begin(number.saturating_add(self.geometry.n_subbufs()))",
            "self.reserved() != u64::MAX || number > 0",
        )],
    },
    Mutant {
        rule: "the place is entered by the first byte of the new lap",
        test: EXPLORE,
        file: READER,
        edits: &[(
            "self.reserved() <= self.geometry.begin(number.saturating_add(self.geometry.n_subbufs()))",
            "self.reserved() < self.geometry.begin(number + self.geometry.n_subbufs() + 1)",
        )],
    },
    Mutant {
        rule: "a count is exact only if reserved is unchanged across it",
        test: EXPLORE,
        file: READER,
        edits: &[("(self.reserved() == reserved).then_some(count)", "Some(count)")],
    },
    Mutant {
        rule: "retired is read after the places: an opener that was stopped may go on meanwhile",
        test: EXPLORE,
        file: READER,
        edits: &[
            (
                "let (mut held, mut open) = (0u64, 0);",
                "let (mut held, mut open) = (buffer.control().producer.retired.acquire(), 0);",
            ),
            ("let recorded = buffer.control().producer.retired.acquire().wrapping_add(held);", "let recorded = held;"),
        ],
    },
    Mutant {
        rule: "and if every place holds what reserved implies",
        test: EXPLORE,
        file: READER,
        edits: &[("if !committed.holds(geometry, lap, used) {", "if false {")],
    },
    Mutant {
        rule: "the carry of the lap in which the bytes wrap is taken off",
        test: EXPLORE,
        file: COMMITTED,
        edits: &[("let carry = (end == 0 && self.bytes() == 0) as u32;", "let carry = (end == 1) as u32;")],
    },
    Mutant {
        rule: "and only in that lap: not once it is in records_before",
        test: EXHAUSTIVE,
        file: COMMITTED,
        edits: &[("let carry = (end == 0 && self.bytes() == 0) as u32;", "let carry = (self.bytes() == 0) as u32;")],
    },
    Mutant {
        rule: "bytes are compared modulo 2^40",
        test: EXPLORE,
        file: COMMITTED,
        edits: &[(".wrapping_add(used) & BYTES_MASK", ".wrapping_add(used)")],
    },
    Mutant {
        rule: "records are counted modulo 2^24",
        test: EXPLORE,
        file: COMMITTED,
        edits: &[(".wrapping_sub(carry) & RECORDS_MASK", ".wrapping_sub(carry)")],
    },
];
