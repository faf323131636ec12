//! What the registry keeps about an object in the message's `meta`: timestamps, materialized intervals, state, version.
//!
//! It is read and written field by field, so that what a newer Feast keeps there stays.

use std::collections::HashSet;

use prost::Message;
use prost_types::Timestamp;

use crate::encoded::Object;
use crate::error::{Error, ErrorKind, Result};
use crate::kind::{Kind, Layout};
use crate::proto::core::{FeatureViewState, MaterializationInterval};
use crate::wire::{self, Field};

/// The fields of a `meta` message, each still encoded but for what rules decide about.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Meta {
    pub(crate) created_timestamp: Option<Vec<u8>>,
    pub(crate) last_updated_timestamp: Option<Vec<u8>>,
    /// The encoded `MaterializationInterval`s, in order.
    pub(crate) intervals: Vec<Vec<u8>>,
    pub(crate) current_version_number: u64,
    pub(crate) state: u64,
    /// Every other field with its number, whole.
    others: Vec<(u32, Vec<u8>)>,
}

impl Meta {
    /// Reads an object's meta.
    pub(crate) fn of(object: &Object) -> Result<Self> {
        let layout = object.kind.layout();
        let mut meta = Meta::default();
        for field in wire::fields(&object.meta()?) {
            meta.take(&layout, &field?);
        }
        meta.others.sort_by_key(|(number, _)| place(&layout, *number));
        Ok(meta)
    }

    /// The number of the version that a view is of, as far as it can be read: 0 also where there is none.
    pub(crate) fn current_version(view: &Object) -> i32 {
        let number = Self::of(view).unwrap_or_else(|_| Self::salvaged(view)).current_version_number;
        i32::try_from(number).unwrap_or(i32::MAX)
    }

    /// What can be read of the meta of an object that cannot be decoded: the fields before the damage, and of those the
    /// ones that are what they should be.
    pub(crate) fn salvaged(object: &Object) -> Self {
        let layout = object.kind.layout();
        let mut meta = Meta::default();
        let legible = |message| wire::fields(message).map_while(Result::ok);
        for part in legible(&object.bytes).filter(|field| Some(field.number) == layout.meta) {
            legible(part.content)
                .filter(|field| is_well_typed(&layout, field))
                .for_each(|field| meta.take(&layout, &field));
        }
        let moment = |encoded: &Vec<u8>| Timestamp::decode(encoded.as_slice()).is_ok();
        meta.created_timestamp = meta.created_timestamp.filter(moment);
        meta.last_updated_timestamp = meta.last_updated_timestamp.filter(moment);
        meta.intervals.retain(|interval| decode(interval).is_ok());
        meta.others.sort_by_key(|(number, _)| place(&layout, *number));
        meta
    }

    /// Takes in one field of an encoded meta.
    fn take(&mut self, layout: &Layout, field: &Field<'_>) {
        let number = Some(field.number);
        if field.number == layout.created_timestamp {
            merge(&mut self.created_timestamp, field.content);
        } else if field.number == layout.last_updated_timestamp {
            merge(&mut self.last_updated_timestamp, field.content);
        } else if number == layout.materialization_intervals {
            self.intervals.push(field.content.to_vec());
        } else if number == layout.current_version_number {
            self.current_version_number = field.varint;
        } else if number == layout.state {
            self.state = field.varint;
        } else {
            self.others.push((field.number, field.raw.to_vec()));
        }
    }

    /// The meta that an object has after an apply.
    ///
    /// - When it was made is kept. Feast replaces what a client sends for a new object by the time of the apply, and so
    ///   does this (`SqlRegistry._apply_object`).
    /// - When it was last updated never goes back: see [`touch`](Self::touch).
    /// - Materialized intervals are the union of what is stored and what comes in. In Feast a non-empty incoming list
    ///   replaces the stored one, which loses what others recorded meanwhile.
    /// - The state comes from the apply, unless that is unspecified; Feast's SQL registry then forgets the stored one.
    /// - The version number is the registry's own and is set by the rules of versions.
    /// - A field that this registry does not know is kept when the apply does not bring it.
    pub(crate) fn merged(stored: Option<Self>, incoming: &Object, now: &Timestamp) -> Result<Self> {
        let mut merged = Meta::of(incoming)?;
        merged.current_version_number = 0;
        let Some(stored) = stored else {
            merged.created_timestamp = Some(now.encode_to_vec());
            merged.last_updated_timestamp = Some(now.encode_to_vec());
            return Ok(merged);
        };
        if stored.created_timestamp.is_some() || merged.created_timestamp.is_none() {
            merged.created_timestamp = stored.created_timestamp.or_else(|| Some(now.encode_to_vec()));
        }
        merged.last_updated_timestamp = stored.last_updated_timestamp;
        merged.touch(now);
        merged.intervals = union(stored.intervals, merged.intervals)?;
        merged.current_version_number = stored.current_version_number;
        if merged.state == FeatureViewState::StateUnspecified as u64 {
            merged.state = stored.state;
        }
        let known = incoming.kind.layout().known_meta_fields;
        let brought: HashSet<u32> = merged.others.iter().map(|(number, _)| *number).collect();
        let is_kept = |number: u32| number > known && !brought.contains(&number);
        merged.others.extend(stored.others.into_iter().filter(|(number, _)| is_kept(*number)));
        Ok(merged)
    }

    /// The same without what the registry notes by itself: moments, intervals, the version and the state.
    pub(crate) fn into_applied(self) -> Self {
        Self { others: self.others, ..Self::default() }
    }

    /// Notes that the object is updated now. Clocks are set back, and differ between servers: what was noted before stays if
    /// it is later, and nothing is updated before it was made. What is no moment that protobuf allows does not count.
    pub(crate) fn touch(&mut self, now: &Timestamp) {
        let moments = [&self.created_timestamp, &self.last_updated_timestamp];
        let earlier = moments.into_iter().flatten().filter_map(|moment| Timestamp::decode(moment.as_slice()).ok());
        let latest = earlier.filter(is_moment).fold(*now, later);
        self.last_updated_timestamp = Some(latest.encode_to_vec());
    }

    /// Whether this says the same as another, but for when it was last updated.
    pub(crate) fn is_same(&self, other: &Self) -> Result<bool> {
        let intervals =
            |meta: &Self| meta.intervals.iter().map(|interval| decode(interval)).collect::<Result<Vec<_>>>();
        let created = |meta: &Self| meta.created_timestamp.as_deref().map(Timestamp::decode).transpose().ok();
        let rest = |meta: &Self| {
            let mut others = meta.others.clone();
            others.sort_by_key(|(number, _)| *number);
            (meta.current_version_number, meta.state, others)
        };
        Ok(rest(self) == rest(other) && created(self) == created(other) && intervals(self)? == intervals(other)?)
    }

    /// The object with this meta.
    pub(crate) fn put_into(&self, object: &Object) -> Result<Object> {
        object.with_meta(&self.encode(object.kind))
    }

    fn encode(&self, kind: Kind) -> Vec<u8> {
        let Layout { created_timestamp, last_updated_timestamp, .. } = kind.layout();
        let layout = kind.layout();
        let mut fields: Vec<(u32, Vec<u8>)> = Vec::new();
        let mut message = |number: u32, content: &[u8]| {
            let mut field = Vec::with_capacity(content.len() + 4);
            wire::put(&mut field, number, content);
            fields.push((number, field));
        };
        if let Some(created) = &self.created_timestamp {
            message(created_timestamp, created);
        }
        if let Some(updated) = &self.last_updated_timestamp {
            message(last_updated_timestamp, updated);
        }
        if let Some(number) = layout.materialization_intervals {
            self.intervals.iter().for_each(|interval| message(number, interval));
        }
        for (number, value) in
            [(layout.current_version_number, self.current_version_number), (layout.state, self.state)]
        {
            if let Some(number) = number {
                let mut field = Vec::new();
                wire::put_varint(&mut field, number, value);
                fields.push((number, field));
            }
        }
        fields.extend(self.others.iter().cloned());
        fields.sort_by_key(|(number, _)| place(&layout, *number));
        fields.into_iter().flat_map(|(_, field)| field).collect()
    }
}

/// The later one of two moments.
pub(crate) fn later(one: Timestamp, other: Timestamp) -> Timestamp {
    std::cmp::max_by_key(one, other, |moment| (moment.seconds, moment.nanos))
}

/// Whether this is between the years 1 and 9999, the range of `google.protobuf.Timestamp`.
pub(crate) fn is_moment(timestamp: &Timestamp) -> bool {
    matches!(timestamp, Timestamp { seconds: -62_135_596_800..=253_402_300_799, nanos: 0..=999_999_999 })
}

/// Where a field stands: in the order in which every protobuf library writes, those that are not known behind, as they
/// came.
fn place(layout: &Layout, number: u32) -> u32 {
    if number <= layout.known_meta_fields { number } else { u32::MAX }
}

/// Whether a field that this registry knows has the wire type that it should; those of others may have any.
fn is_well_typed(layout: &Layout, field: &Field<'_>) -> bool {
    let is_number = [layout.current_version_number, layout.state].contains(&Some(field.number));
    let is_known = field.number <= layout.known_meta_fields;
    !is_known || if is_number { field.is_varint() } else { field.is_length_delimited() }
}

fn merge(timestamp: &mut Option<Vec<u8>>, more: &[u8]) {
    timestamp.get_or_insert_default().extend_from_slice(more);
}

/// The stored intervals and, after them, those of the others that are not among them.
fn union(stored: Vec<Vec<u8>>, incoming: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>> {
    if incoming.is_empty() {
        return Ok(stored);
    }
    let mut known: HashSet<_> = stored.iter().map(|interval| decode(interval)).collect::<Result<_>>()?;
    let mut all = stored;
    for interval in incoming {
        if known.insert(decode(&interval)?) {
            all.push(interval);
        }
    }
    Ok(all)
}

/// Reads an encoded interval.
pub(crate) fn decode(interval: &[u8]) -> Result<MaterializationInterval> {
    MaterializationInterval::decode(interval).map_err(|error| {
        Error::new(ErrorKind::Corrupt, "a materialization interval cannot be decoded").with_source(error)
    })
}
