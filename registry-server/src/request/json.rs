//! What JSON takes when it is read.

/// The memory that a body of JSON takes when it is read, to a tree of values: at the least, it is counted more than it takes
/// (`a_body_of_json_takes_no_more_than_it_is_counted`). The tree goes while a message is made of it.
pub(super) fn memory<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> usize {
    /// An array has room for four values at the least.
    const ARRAY: usize = 352;
    /// A map has room for a few fields, and a table of their hashes.
    const OBJECT: usize = 560;
    /// A value or a name: its place, of which half may be free, and what the allocator adds to its text.
    const VALUE: usize = 176;
    let (mut memory, mut is_in_text, mut is_escaped) = (0_usize, false, false);
    for byte in pieces.flatten() {
        memory += 1;
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_in_text => is_escaped = true,
            b'"' => is_in_text = !is_in_text,
            _ if is_in_text => {}
            b'[' => memory += ARRAY,
            b'{' => memory += OBJECT,
            b',' | b':' => memory += VALUE,
            _ => {}
        }
    }
    memory
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fault: arrays in arrays, of 16 MB, took 147 times that, and were counted 16 times.
    #[test]
    fn a_body_of_json_takes_no_more_than_it_is_counted() {
        /// What a tree of values takes: that is not asked of an allocator, but known of `Vec` and of maps that keep their order, which
        /// have a hash, a name and a value in a `Vec`, and a table of numbers.
        fn taken(value: &serde_json::Value) -> usize {
            const VALUE: usize = size_of::<serde_json::Value>();
            const HEADER: usize = 16;
            const ENTRY: usize = size_of::<u64>() + size_of::<String>() + VALUE;
            match value {
                serde_json::Value::String(text) => text.len() + HEADER,
                serde_json::Value::Array(values) => {
                    HEADER + values.capacity() * VALUE + values.iter().map(taken).sum::<usize>()
                }
                serde_json::Value::Object(fields) => {
                    let capacity = fields.len().next_power_of_two().max(4);
                    let inner = fields.iter().map(|(name, value)| HEADER + name.len() + taken(value));
                    2 * HEADER + capacity * (ENTRY + 2 * size_of::<usize>()) + inner.sum::<usize>()
                }
                _ => 0,
            }
        }
        let tags: Vec<String> = (0..5000).map(|number| format!(r#""{number}":"""#)).collect();
        for body in [
            format!("[{}0]", "[[[[[[[[[[0]]]]]]]]]],".repeat(2000)),
            format!("[{}0]", r#"{"":{"":{"":0}}},"#.repeat(2000)),
            format!("[{}0]", "0,".repeat(50_000)),
            format!("{{{}}}", tags.join(",")),
            format!(r#"["{}"]"#, r#"[,\\{:"#.repeat(10_000)),
        ] {
            let (first, second) = body.as_bytes().split_at(body.len() / 3);
            let counted = memory([first, second].into_iter());
            let value: serde_json::Value = serde_json::from_str(&body).expect("JSON");
            assert!(taken(&value) <= counted, "{} of {counted}: {}", taken(&value), &body[..50]);
            assert!(counted <= body.len() * 400);
        }
        let text = br#"{"a":"[{,:\\\"[","#;
        assert_eq!(memory([&text[..]].into_iter()), text.len() + 560 + 176 + 176);
    }
}
