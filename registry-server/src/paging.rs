//! Pages of a list that is in memory (Feast: `rest_utils.paginate_and_sort`, `apply_pagination_and_sorting`), and what answers say of them.

use std::ops::Range;

use serde_json::{Map, Value};

use crate::proto::{PaginationMetadata, PaginationParams};

/// Which page of a list is wanted: pages count from 1 and have `limit` items each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Paging {
    pub(crate) page: u32,
    pub(crate) limit: u32,
}

impl Paging {
    /// The page that a call asks for, if both its numbers are positive.
    pub(crate) fn of(PaginationParams { page, limit }: PaginationParams) -> Option<Self> {
        let positive = |number| u32::try_from(number).ok().filter(|number| *number > 0);
        Some(Self { page: positive(page)?, limit: positive(limit)? })
    }

    /// Where the page stands in a list of so many items; empty beyond its end.
    pub(crate) fn range(self, total: usize) -> Range<usize> {
        let limit = self.limit as usize;
        let start = (self.page as usize).saturating_sub(1).saturating_mul(limit);
        start.min(total)..start.saturating_add(limit).min(total)
    }

    /// The items of the page, and what is said of it.
    pub(crate) fn take<T>(self, mut items: Vec<T>) -> (Vec<T>, PaginationMetadata) {
        let (range, metadata) = (self.range(items.len()), self.metadata(items.len()));
        items.truncate(range.end);
        items.drain(..range.start);
        (items, metadata)
    }

    /// What is said of the page of a list of so many items.
    pub(crate) fn metadata(self, total: usize) -> PaginationMetadata {
        PaginationMetadata {
            page: saturated(self.page as usize),
            limit: saturated(self.limit as usize),
            total_count: saturated(total),
            total_pages: saturated(total.div_ceil(self.limit.max(1) as usize)),
            has_next: self.range(total).end < total,
            has_previous: self.page > 1 && self.limit > 0,
        }
    }
}

fn saturated(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// What is said of a page, as protobuf's JSON has it: zero and false are left out.
pub(crate) fn to_json(of: &PaginationMetadata) -> Value {
    let numbers =
        [("page", of.page), ("limit", of.limit), ("totalCount", of.total_count), ("totalPages", of.total_pages)];
    let flags = [("hasNext", of.has_next), ("hasPrevious", of.has_previous)];
    let numbers = numbers.into_iter().filter(|(_, number)| *number != 0).map(|(name, of)| (name, Value::from(of)));
    let flags = flags.into_iter().filter(|(_, is)| *is).map(|(name, is)| (name, Value::Bool(is)));
    Value::Object(numbers.chain(flags).map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pages_divide_a_list(total in 0_usize..500, limit in 1_u32..60) {
            let pages = (1..).map(|page| Paging { page, limit });
            let with_items: Vec<_> = pages.take_while(|paging| !paging.range(total).is_empty()).collect();
            let items: Vec<usize> = with_items.iter().flat_map(|paging| paging.range(total)).collect();
            prop_assert_eq!(items, (0..total).collect::<Vec<_>>());
            for paging in &with_items {
                let metadata = paging.metadata(total);
                prop_assert_eq!(metadata.total_pages as usize, with_items.len());
                prop_assert_eq!(metadata.has_next, (paging.page as usize) < with_items.len());
                prop_assert_eq!(metadata.has_previous, paging.page > 1);
                let list: Vec<usize> = (0..total).collect();
                prop_assert_eq!(paging.take(list), (paging.range(total).collect(), metadata));
            }
        }

        #[test]
        fn no_page_panics(page: u32, limit: u32, total: usize) {
            let paging = Paging { page, limit };
            let range = paging.range(total);
            prop_assert!(range.start <= range.end && range.end <= total);
            to_json(&paging.metadata(total));
        }
    }
}
